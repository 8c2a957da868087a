"""What this host, kernel, user and set-up allow; each finding with its remedy."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from schedhook.config import Config
from schedhook.errors import SchedhookError
from schedhook.host.cgroups import hierarchies
from schedhook.host.processes import read_status
from schedhook.host.topology import read_topology
from schedhook.plugins import Plugins

_CAPABILITIES = {
    # <linux/capability.h>
    "CAP_SYS_NICE": (23, "pages that several processes map stay, and cpusets cannot be crossed"),
    "CAP_SYS_PTRACE": (19, "only the caller's own processes can be moved"),
    "CAP_SYS_ADMIN": (21, "transparent huge pages are moved in more calls on kernels before 6.7"),
}


class Level(StrEnum):
    """How a finding matters."""

    OK = "ok"
    NOTE = "note"
    """Works, but with a limit that one should know."""
    PROBLEM = "problem"
    """Something that schedhook is for does not work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of the examination."""

    subject: str
    level: Level
    what: str
    remedy: str = ""


def examine(config: Config, plugins: Plugins, root: Path = Path("/")) -> list[Finding]:
    """Look at everything that a relocation depends on. A check that fails is a finding itself."""
    checks: tuple[Callable[[], Iterable[Finding]], ...] = (
        lambda: _versions(root),
        lambda: _nodes(config, root),
        lambda: _rights(root),
        lambda: _kernel(root),
        lambda: _balancing(root),
        lambda: _cgroups(root),
        lambda: _plugins(plugins),
        lambda: _configuration(config, plugins),
    )
    findings: list[Finding] = []
    for check in checks:
        try:
            findings += check()
        except (SchedhookError, OSError, ValueError) as error:
            findings.append(Finding(subject="examination", level=Level.PROBLEM, what=str(error)))
    return findings


def _versions(root: Path) -> Iterable[Finding]:
    from schedhook import __version__  # noqa: PLC0415

    try:
        kernel = (root / "proc/sys/kernel/osrelease").read_text().strip()
    except OSError:
        kernel = platform.release()
    python = platform.python_version()
    what = f"schedhook {__version__}, Python {python}, Linux {kernel}"
    yield Finding(subject="versions", level=Level.OK, what=what)


def _nodes(config: Config, root: Path) -> Iterable[Finding]:
    topology = read_topology(root)
    nodes = topology.memory_nodes
    if len(nodes) < 2:
        what = f"one node with memory ({nodes}): there is nowhere to move to"
        remedy = "nothing to mend; schedhook has nothing to do on this host"
        yield Finding(subject="nodes", level=Level.NOTE, what=what, remedy=remedy)
        return
    what = f"{len(nodes)} nodes with memory ({nodes}), processors on {topology.cpu_nodes}"
    yield Finding(subject="nodes", level=Level.OK, what=what)
    reserve = config.relocation.reserve_mb << 20
    for number in nodes:
        node = topology.node(number)
        free, total = node.memory_free >> 20, node.memory_total >> 20
        full = node.memory_free < reserve
        yield Finding(
            subject=f"node {number}",
            level=Level.NOTE if full else Level.OK,
            what=f"{free} of {total} MiB free, {node.memory_reclaimable >> 20} MiB clean cache",
            remedy="full: a relocation to it is refused until memory is freed" if full else "",
        )


def _rights(root: Path) -> Iterable[Finding]:
    effective = read_status(os.getpid(), root).cap_effective
    for name, (bit, without) in _CAPABILITIES.items():
        has = bool(effective >> bit & 1)
        yield Finding(
            subject=name,
            level=Level.OK if has else Level.NOTE,
            what="held" if has else f"missing: {without}",
            remedy="" if has else "run as root, or grant it in the service's unit",
        )
    scope = _number(root / "proc/sys/kernel/yama/ptrace_scope")
    if scope >= 2 and not effective >> 19 & 1:
        what = (
            f"kernel.yama.ptrace_scope is {scope}: no process may be moved without CAP_SYS_PTRACE"
        )
        yield Finding(
            subject="ptrace", level=Level.PROBLEM, what=what, remedy="run with CAP_SYS_PTRACE"
        )


def _kernel(root: Path) -> Iterable[Finding]:
    from schedhook.native import _core  # noqa: PLC0415 - a build without it is a finding

    try:
        _core.check_access(os.getpid())
    except OSError as error:
        what = f"not available: {error.strerror}"
        remedy = "a kernel with CONFIG_MIGRATION and CONFIG_NUMA"
        yield Finding(subject="move_pages", level=Level.PROBLEM, what=what, remedy=remedy)
    else:
        yield Finding(subject="move_pages", level=Level.OK, what="works")
    with (root / "proc/self/pagemap").open("rb") as pagemap:
        scans = _core.can_scan(pagemap.fileno())
    yield Finding(
        subject="PAGEMAP_SCAN",
        level=Level.OK if scans else Level.NOTE,
        what="works" if scans else "missing: /proc/PID/pagemap is read, slower on sparse memory",
        remedy="" if scans else "Linux 6.7 or later has it",
    )


def _balancing(root: Path) -> Iterable[Finding]:
    on = _number(root / "proc/sys/kernel/numa_balancing") > 0
    yield Finding(
        subject="numa_balancing",
        level=Level.NOTE if on else Level.OK,
        what="on: the kernel itself moves pages, and may undo a relocation" if on else "off",
        remedy="sysctl kernel.numa_balancing=0 on hosts whose jobs are bound" if on else "",
    )


def _cgroups(root: Path) -> Iterable[Finding]:
    found = [
        each
        for each in hierarchies(root)
        if each.version == 2 or (each.path / "cpuset.cpus").exists()
    ]
    if not found:
        yield Finding(
            subject="cgroups",
            level=Level.PROBLEM,
            what="no hierarchy with cpusets is mounted: jobs cannot be found by cgroup",
            remedy="mount cgroup2 on /sys/fs/cgroup and enable cpuset in cgroup.subtree_control",
        )
    for each in found:
        what = f"version {each.version} at {each.path}"
        yield Finding(subject="cgroups", level=Level.OK, what=what)


def _plugins(plugins: Plugins) -> Iterable[Finding]:
    for problem in plugins.problems:
        yield Finding(
            subject=f"plug-in {problem.provider}",
            level=Level.PROBLEM,
            what=problem.what,
            remedy="mend or remove its package, or name it in plugins.disabled",
        )


def _configuration(config: Config, plugins: Plugins) -> Iterable[Finding]:
    where = str(config.source) if config.source else "none; the defaults hold"
    yield Finding(subject="configuration", level=Level.OK, what=where)
    for choose, name in (
        (plugins.strategy, config.relocation.strategy),
        (plugins.mapper, config.relocation.mapper),
        (plugins.backend, config.relocation.backend),
    ):
        try:
            choose(name)
        except SchedhookError as error:
            yield Finding(
                subject="configuration",
                level=Level.PROBLEM,
                what=str(error),
                remedy="choose one of `schedhook plugins`",
            )


def _number(path: Path) -> int:
    """What a sysctl file holds, 0 where there is none."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return 0
