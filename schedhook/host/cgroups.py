"""Control groups, versions 1 and 2: a job's processes and its cpuset.

Sources: cgroups(7), cpuset(7) and the kernel's Documentation/admin-guide/cgroup-v2. Where the
cpuset controller has a hierarchy of version 1, "the" cgroup of a process is the one there; else it
is the one of version 2. Nothing is written.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, TypeVar

from schedhook.host._proc import gone, read
from schedhook.host.mounts import read_mounts
from schedhook.host.processes import read_status
from schedhook.host.topology import read_online_cpus, read_online_nodes
from schedhook.values.errors import NoPermissionError, ProcessGoneError, SchedhookError, UsageError
from schedhook.values.sets import CpuSet, IdSet, NodeSet
from schedhook.values.text import printable

_Set = TypeVar("_Set", bound=IdSet)

_TRIED_SHOWN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Cgroup:
    """A control group, as a directory."""

    path: Path
    version: Literal[1, 2]
    mount: Path
    """Where its hierarchy is mounted; readers look no higher."""

    @property
    def name(self) -> str:
        """As in /proc/PID/cgroup: `/` for the root, `/system.slice/x` below."""
        relative = str(self.path.relative_to(self.mount))
        return "/" if relative == "." else f"/{relative}"

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True, slots=True)
class _Mount:
    """A mounted hierarchy. `top` is the cgroup that shows at the mount point: not `/` in some
    containers."""

    point: Path
    top: PurePosixPath
    version: Literal[1, 2]
    controllers: frozenset[str]

    def locate(self, name: str) -> Path | None:
        """The directory of the cgroup that /proc/PID/cgroup calls `name`, if it is below here."""
        wanted = PurePosixPath(name)
        if ".." in wanted.parts or not wanted.is_relative_to(self.top):
            return None
        return self.point / wanted.relative_to(self.top)


def resolve_cgroup(text: str, root: Path = Path("/")) -> Cgroup:
    """The cgroup that a person means by `text`.

    Taken are a directory (`/sys/fs/cgroup/system.slice/x`) and a path from the top of a hierarchy
    (`system.slice/x`, with or without a leading slash); the latter is looked for where cpusets
    are, then in version 2, then in the other hierarchies of version 1. UsageError names what was
    tried.
    """
    if not text.strip() or "\0" in text:
        raise UsageError(f"{text!r} is not the name of a cgroup")
    if ".." in PurePosixPath(text).parts:
        raise UsageError(f"cgroup {text!r}: '..' is not allowed in the name")
    mounts = _mounts(root)
    if not mounts:
        raise UsageError(f"cgroup {text!r}: no cgroup file system is mounted on this host")
    given = PurePosixPath("/") / text
    tried: list[str] = []
    for mount, path in dict.fromkeys(_candidates(given, mounts, root)):
        if _is_cgroup(path):
            return Cgroup(path=path, version=mount.version, mount=mount.point)
        tried.append(printable(str(path)))
    shown = ", ".join(tried[:_TRIED_SHOWN])
    more = f" and {len(tried) - _TRIED_SHOWN} other places" if len(tried) > _TRIED_SHOWN else ""
    raise UsageError(f"there is no cgroup {text!r}; tried {shown}{more}")


def _candidates(
    given: PurePosixPath, mounts: list[_Mount], root: Path
) -> Iterator[tuple[_Mount, Path]]:
    for directory in (root / given.relative_to("/"), Path(given)):
        inside = [mount for mount in mounts if directory.is_relative_to(mount.point)]
        if inside:  # the innermost mount, since hierarchies may be mounted below one another
            yield max(inside, key=lambda mount: len(mount.point.parts)), directory
    for mount in mounts:
        yield mount, mount.point / given.relative_to("/")


def _is_cgroup(path: Path) -> bool:
    try:
        return path.is_dir() and any((path / name).exists() for name in ("cgroup.procs", "tasks"))
    except OSError:
        return False


def hierarchies(root: Path = Path("/")) -> list[Cgroup]:
    """The top of each mounted hierarchy: cpuset of version 1, version 2, the others."""
    return [
        Cgroup(path=mount.point, version=mount.version, mount=mount.point)
        for mount in _mounts(root)
    ]


def cgroup_of(pid: int, root: Path = Path("/")) -> Cgroup:
    """The cgroup in whose cpuset a process is.

    ProcessGoneError where the process, or its cgroup, is gone; SchedhookError where the cgroup
    lies outside what this host (or container) has mounted.
    """
    by_controller = {
        controller: name
        for controllers, name in memberships(pid, root)
        for controller in controllers.split(",")
    }
    for mount in _mounts(root):
        key = "cpuset" if mount.version == 1 else ""
        if key not in by_controller or (mount.version == 1 and key not in mount.controllers):
            continue
        name = by_controller[key]
        path = mount.locate(name.removesuffix(" (deleted)"))
        if path is not None and _is_cgroup(path):
            return Cgroup(path=path, version=mount.version, mount=mount.point)
        if name.endswith(" (deleted)"):
            raise gone(pid)
    raise SchedhookError(f"cannot find the cgroup of process {pid} below the mounted hierarchies")


def memberships(pid: int, root: Path = Path("/")) -> tuple[tuple[str, str], ...]:
    """(controllers, name of the cgroup) in each hierarchy, as /proc/PID/cgroup has them; version 2
    has no controllers there. ProcessGoneError, SchedhookError.

    Of a name's characters the kernel rules out the newline only: whoever may make cgroups may give
    them names with anything else at which Python would end a line.
    """
    found = []
    for line in read(pid, "cgroup", root).split(b"\n"):
        _, colon, named = line.decode("utf-8", "surrogateescape").partition(":")
        controllers, _, name = named.partition(":")
        if colon:
            found.append((controllers, name))
    return tuple(found)


def pids(cgroup: Cgroup, root: Path = Path("/")) -> list[int]:
    """The processes in a cgroup and in all below it, ascending. Those of other pid namespaces,
    which have no number here, are left out. A cgroup that is gone has none.

    NoPermissionError where a part cannot be read: a list with holes would look complete.
    """
    found: set[int] = set()
    for path in _subtree(cgroup.path):
        found.update(_pids_in(path, root))
    found.discard(0)
    return sorted(found)


def _subtree(path: Path) -> Iterator[Path]:
    """`path` and the directories below; those that vanish during the walk are passed over."""
    pending = [path]
    while pending:
        current = pending.pop()
        yield current
        with _vanishing(current):
            pending.extend(entry for entry in current.iterdir() if entry.is_dir())


def _pids_in(path: Path, root: Path) -> Iterator[int]:
    with _vanishing(path):
        try:
            yield from _numbers(path / "cgroup.procs")
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise
            # A threaded cgroup has threads only; their processes are members further up.
            for thread in _numbers(path / "cgroup.threads"):
                with contextlib.suppress(ProcessGoneError):
                    yield read_status(thread, root).tgid


def _numbers(path: Path) -> list[int]:
    text = path.read_bytes()
    with _understood(path):
        return [int(word) for word in text.split()]


@contextlib.contextmanager
def _understood(path: Path) -> Iterator[None]:
    """SchedhookError in the place of what a parser says of a file that no kernel wrote."""
    try:
        yield
    except ValueError as error:
        raise SchedhookError(f"cannot make sense of {path}: {error}") from None


@contextlib.contextmanager
def _vanishing(path: Path) -> Iterator[None]:
    try:
        yield
    except PermissionError:
        raise NoPermissionError(f"{path}: not permitted; run as root") from None
    except OSError as error:
        # ENODEV: opened before the cgroup was removed, read after.
        if error.errno not in (errno.ENOENT, errno.ENODEV):
            raise SchedhookError(f"cannot read {path}: {error.strerror}") from error


def effective_cpus(cgroup: Cgroup, root: Path = Path("/")) -> CpuSet:
    """The processors that its processes may run on, as the nearest cpuset at or above says; every
    online one where no cpuset is in sight."""
    text = _effective(cgroup, "cpus")
    return read_online_cpus(root) if text is None else _parse(CpuSet, text, cgroup)


def effective_nodes(cgroup: Cgroup, root: Path = Path("/")) -> NodeSet:
    """The nodes that its processes may take memory from; see `effective_cpus`."""
    text = _effective(cgroup, "mems")
    return read_online_nodes(root) if text is None else _parse(NodeSet, text, cgroup)


def configured_cpus(cgroup: Cgroup) -> CpuSet:
    """What was written to this cgroup's own cpuset.cpus; empty where it takes its parent's."""
    return _parse(CpuSet, _configured(cgroup.path, "cpus") or "", cgroup)


def configured_nodes(cgroup: Cgroup) -> NodeSet:
    """What was written to this cgroup's own cpuset.mems; empty where it takes its parent's."""
    return _parse(NodeSet, _configured(cgroup.path, "mems") or "", cgroup)


def _parse(kind: type[_Set], text: str, cgroup: Cgroup) -> _Set:
    with _understood(cgroup.path):
        return kind.parse(text)


def _effective(cgroup: Cgroup, what: str) -> str | None:
    path = cgroup.path
    while True:
        if cgroup.version == 2:
            text = _text(path / f"cpuset.{what}.effective")
        else:
            text = _text(path / f"cpuset.effective_{what}") or _configured(path, what)
        if text is not None or path in (cgroup.mount, path.parent):
            return text
        path = path.parent


def _configured(path: Path, what: str) -> str | None:
    # The cpuset file system of old, and mounts with the option noprefix, have plain names.
    text = _text(path / f"cpuset.{what}")
    return _text(path / what) if text is None else text


def frozen(cgroup: Cgroup, root: Path = Path("/")) -> bool:
    """Whether all its processes are frozen, by itself or by a cgroup above (not: below).

    In version 1 it is the cgroup of the same name in the freezer's hierarchy that says so.
    """
    if cgroup.version == 2:
        return "frozen 1" in (_text(cgroup.path / "cgroup.events") or "").splitlines()
    for mount in _mounts(root):
        if "freezer" in mount.controllers:
            path = mount.point / cgroup.path.relative_to(cgroup.mount)
            return _text(path / "freezer.state") == "FROZEN"
    return False


def _text(path: Path) -> str | None:
    """A file's text without the blanks around; None where there is no such file (any more)."""
    with _vanishing(path):
        return path.read_bytes().decode("ascii", "replace").strip()
    return None


def _mounts(root: Path) -> list[_Mount]:
    """Mounted hierarchies in the order of search: cpuset of version 1, version 2, the others."""
    return sorted(
        {mount.point: mount for mount in _all_mounts(root)}.values(),
        key=lambda mount: (
            "cpuset" not in mount.controllers,
            mount.version != 2,
            len(mount.point.parts),
        ),
    )


def _all_mounts(root: Path) -> Iterator[_Mount]:
    for top, point, kind, options in read_mounts(root):
        if kind not in ("cgroup", "cgroup2", "cpuset"):
            continue
        directory = root / point.lstrip("/")
        controllers = set(options.split(",")) if kind == "cgroup" else set()
        if kind == "cpuset":
            controllers.add("cpuset")
        yield _Mount(
            point=directory,
            top=PurePosixPath(top),
            version=2 if kind == "cgroup2" else 1,
            controllers=frozenset(controllers),
        )
