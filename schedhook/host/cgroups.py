"""Cgroups, versions 1 and 2: a job's processes and its cpuset. Nothing is written.

Sources: cgroups(7), cpuset(7) and the kernel's Documentation/admin-guide/cgroup-v2. If the cpuset
controller has a hierarchy of version 1, "the" cgroup of a process is the one there; else it is the
one of version 2.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal

from schedhook.host import _cgroup_files as files
from schedhook.host._proc import gone, read
from schedhook.host.hierarchies import Hierarchy, read_hierarchies
from schedhook.host.processes import read_status
from schedhook.host.topology import read_online_cpus, read_online_nodes
from schedhook.host.vanishing import read_living
from schedhook.values.errors import SchedhookError, UsageError
from schedhook.values.sets import CpuSet, NodeSet
from schedhook.values.text import printable

_TRIED_SHOWN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Cgroup:
    """A cgroup, as a directory."""

    path: Path
    version: Literal[1, 2]
    mount: Path
    """The mount point of its hierarchy; readers look no higher."""

    @property
    def name(self) -> str:
        """The name as in /proc/PID/cgroup: `/` for the root, `/system.slice/x` below."""
        relative = str(self.path.relative_to(self.mount))
        return "/" if relative == "." else f"/{relative}"

    def __str__(self) -> str:
        return str(self.path)


def resolve_cgroup(text: str, root: Path = Path("/")) -> Cgroup:
    """Return the cgroup that `text` names.

    `text` is a directory (`/sys/fs/cgroup/system.slice/x`) or a path from the top of a hierarchy
    (`system.slice/x`, with or without a leading slash). A path is looked up in the hierarchy of
    cpusets, then in version 2, then in the other hierarchies of version 1. Raise UsageError, which
    names the places that were tried.
    """
    if not text.strip() or "\0" in text:
        raise UsageError(f"{text!r} is not the name of a cgroup, as /proc/PID/cgroup has it")
    if ".." in PurePosixPath(text).parts:
        raise UsageError(f"cgroup {text!r}: '..' is not allowed in the name; write it without")
    mounted = read_hierarchies(root)
    if not mounted:
        raise UsageError(f"cgroup {text!r}: no cgroup file system is mounted on this host")
    given = PurePosixPath("/") / text
    tried: list[str] = []
    for hierarchy, path in dict.fromkeys(_candidates(given, mounted, root)):
        if _is_cgroup(path):
            return _cgroup(hierarchy, path)
        tried.append(printable(str(path)))
    shown = ", ".join(tried[:_TRIED_SHOWN])
    more = f" and {len(tried) - _TRIED_SHOWN} other places" if len(tried) > _TRIED_SHOWN else ""
    raise UsageError(f"there is no cgroup {text!r}; tried {shown}{more}; systemd-cgls lists them")


def hierarchies(root: Path = Path("/")) -> list[Cgroup]:
    """Return the top of each mounted hierarchy: cpuset of version 1, version 2, the others."""
    return [_cgroup(each, each.point) for each in read_hierarchies(root)]


def cgroup_of(pid: int, root: Path = Path("/")) -> Cgroup:
    """Return the cgroup in whose cpuset a process is.

    Raise ProcessGoneError if the process or its cgroup is gone, SchedhookError if the cgroup is
    outside the hierarchies that are mounted on this host (or in this container).
    """
    by_controller = {
        controller: name
        for controllers, name in memberships(pid, root)
        for controller in controllers.split(",")
    }
    for hierarchy in read_hierarchies(root):
        key = "cpuset" if hierarchy.version == 1 else ""
        if key not in by_controller or (key and key not in hierarchy.controllers):
            continue
        name = by_controller[key]
        path = hierarchy.locate(name.removesuffix(" (deleted)"))
        if path is not None and _is_cgroup(path):
            return _cgroup(hierarchy, path)
        if name.endswith(" (deleted)"):
            raise gone(pid)
    raise SchedhookError(f"cannot find the cgroup of process {pid} below the mounted hierarchies")


def memberships(pid: int, root: Path = Path("/")) -> tuple[tuple[str, str], ...]:
    """Return (controllers, name of the cgroup) for each hierarchy, from /proc/PID/cgroup.

    Version 2 has no controllers there. Raise ProcessGoneError or SchedhookError.
    """
    # The kernel rules out only the newline in a name; a user who may make cgroups can put any
    # other character there, including those at which str.splitlines() splits.
    found = []
    for line in read(pid, "cgroup", root).split(b"\n"):
        _, colon, named = line.decode("utf-8", "surrogateescape").partition(":")
        controllers, _, name = named.partition(":")
        if colon:
            found.append((controllers, name))
    return tuple(found)


def pids(cgroup: Cgroup, root: Path = Path("/")) -> list[int]:
    """Return the processes in a cgroup and in all below it, ascending; none if it is gone.

    Processes of other pid namespaces, which have no number here, are left out. Raise
    NoPermissionError if a part cannot be read: an incomplete list would look complete.
    """
    found: set[int] = set()
    for path in files.subtree(cgroup.path):
        with files.ignoring_removal(path):
            found.update(_pids_in(path, root))
    found.discard(0)
    return sorted(found)


def has_processes(cgroup: Cgroup) -> bool:
    """Return whether a process is in the cgroup, or in one below it, that has not exited."""
    return files.has_processes(cgroup.path, cgroup.version)


def subtree(cgroup: Cgroup) -> Iterator[Cgroup]:
    """Yield the cgroup and all below it, parents first, siblings sorted by name."""
    return (replace(cgroup, path=path) for path in files.subtree(cgroup.path))


def effective_cpus(cgroup: Cgroup, root: Path = Path("/")) -> CpuSet:
    """Return the processors that its processes may run on.

    They come from the nearest cpuset at or above the cgroup; without a cpuset they are all online
    processors.
    """
    text = _effective(cgroup, "cpus")
    return read_online_cpus(root) if text is None else files.parse_set(CpuSet, text, cgroup.path)


def effective_nodes(cgroup: Cgroup, root: Path = Path("/")) -> NodeSet:
    """Return the nodes that its processes may allocate memory on; see `effective_cpus`."""
    text = _effective(cgroup, "mems")
    return read_online_nodes(root) if text is None else files.parse_set(NodeSet, text, cgroup.path)


def configured_cpus(cgroup: Cgroup) -> CpuSet:
    """Return this cgroup's own cpuset.cpus; empty if it inherits its parent's."""
    return files.parse_set(CpuSet, _configured(cgroup.path, "cpus") or "", cgroup.path)


def configured_nodes(cgroup: Cgroup) -> NodeSet:
    """Return this cgroup's own cpuset.mems; empty if it inherits its parent's."""
    return files.parse_set(NodeSet, _configured(cgroup.path, "mems") or "", cgroup.path)


def frozen(cgroup: Cgroup, root: Path = Path("/")) -> bool:
    """Return whether all its processes are frozen, by this cgroup or by one above it (not below).

    In version 1 the cgroup of the same name in the freezer's hierarchy decides.
    """
    if cgroup.version == 2:
        return "frozen 1" in (files.read_text(cgroup.path / "cgroup.events") or "").splitlines()
    for hierarchy in read_hierarchies(root):
        if "freezer" in hierarchy.controllers:
            path = hierarchy.point / cgroup.path.relative_to(cgroup.mount)
            return files.read_text(path / "freezer.state") == "FROZEN"
    return False


def _cgroup(hierarchy: Hierarchy, path: Path) -> Cgroup:
    return Cgroup(path=path, version=hierarchy.version, mount=hierarchy.point)


def _candidates(
    given: PurePosixPath, mounted: Sequence[Hierarchy], root: Path
) -> Iterator[tuple[Hierarchy, Path]]:
    for directory in (root / given.relative_to("/"), Path(given)):
        around = [each for each in mounted if directory.is_relative_to(each.point)]
        if around:  # the innermost mount: hierarchies may be mounted below one another
            yield max(around, key=lambda each: len(each.point.parts)), directory
    for each in mounted:
        yield each, each.point / given.relative_to("/")


def _is_cgroup(path: Path) -> bool:
    try:
        return path.is_dir() and any((path / name).exists() for name in ("cgroup.procs", "tasks"))
    except OSError:
        return False


def _pids_in(path: Path, root: Path) -> set[int]:
    try:
        return set(files.read_numbers(path / "cgroup.procs"))
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
    # A threaded cgroup has threads only; their processes are members further up.
    threads = files.read_numbers(path / "cgroup.threads")
    return {tgid for _, tgid in read_living(threads, lambda tid: read_status(tid, root).tgid)}


def _effective(cgroup: Cgroup, what: str) -> str | None:
    path = cgroup.path
    while True:
        if cgroup.version == 2:
            text = files.read_text(path / f"cpuset.{what}.effective")
        else:
            text = files.read_text(path / f"cpuset.effective_{what}") or _configured(path, what)
        if text is not None or path in (cgroup.mount, path.parent):
            return text
        path = path.parent


def _configured(path: Path, what: str) -> str | None:
    # The old cpuset file system, and mounts with the option noprefix, have plain names.
    text = files.read_text(path / f"cpuset.{what}")
    return files.read_text(path / what) if text is None else text
