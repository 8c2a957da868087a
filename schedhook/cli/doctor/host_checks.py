"""What this host, kernel, user and set-up allow; each finding with its remedy."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterable
from pathlib import Path

from schedhook import __version__
from schedhook.cli.doctor import service_checks as service
from schedhook.host.cgroups import hierarchies
from schedhook.host.processes import read_status
from schedhook.host.topology import read_topology
from schedhook.plugins.findings import Finding, Level, note, ok, problem
from schedhook.plugins.manager import Plugins
from schedhook.plugins.sources import BUILT_IN
from schedhook.values.config import Config
from schedhook.values.errors import SchedhookError

_CAPABILITIES = {
    # <linux/capability.h>
    "CAP_SYS_NICE": (23, "pages that several processes map stay, and cpusets cannot be crossed"),
    "CAP_SYS_PTRACE": (19, "only the caller's own processes can be moved"),
    "CAP_SYS_ADMIN": (21, "transparent huge pages are moved in more calls on kernels before 6.7"),
}


def examine(config: Config, plugins: Plugins, root: Path = Path("/")) -> list[Finding]:
    """Look at everything that a relocation depends on. A check that fails is a finding itself."""
    checks: tuple[Callable[[], Iterable[Finding]], ...] = (
        lambda: _versions(plugins, root),
        lambda: _nodes(config, root),
        lambda: _rights(root),
        lambda: _kernel(root),
        lambda: _balancing(root),
        lambda: _cgroups(root),
        lambda: _plugins(plugins),
        lambda: _configuration(config, plugins),
        lambda: service.examine(config),
        lambda: _told_by_plugins(plugins, root),
    )
    findings: list[Finding] = []
    for check in checks:
        try:
            findings += check()
        except (SchedhookError, OSError, ValueError) as error:
            remedy = "mend what it names; nothing else was looked at there"
            findings.append(problem("examination", str(error), remedy))
    return findings


def _versions(plugins: Plugins, root: Path) -> Iterable[Finding]:
    try:
        kernel = (root / "proc/sys/kernel/osrelease").read_text().strip()
    except OSError:
        kernel = platform.release()
    python = platform.python_version()
    yield ok("versions", f"schedhook {__version__}, Python {python}, Linux {kernel}")
    packages = {str(each.source.package) for each in plugins.listing()} - {BUILT_IN}
    if packages:
        yield ok("plug-ins", ", ".join(sorted(packages)))


def _nodes(config: Config, root: Path) -> Iterable[Finding]:
    topology = read_topology(root)
    nodes = topology.memory_nodes
    if len(nodes) < 2:
        what = f"one node with memory ({nodes}): there is nowhere to move to"
        yield note("nodes", what, "nothing to mend; schedhook has nothing to do on this host")
        return
    what = f"{len(nodes)} nodes with memory ({nodes}), processors on {topology.cpu_nodes}"
    yield ok("nodes", what)
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


def _kernel(root: Path) -> Iterable[Finding]:
    from schedhook.backends.native import _core, access

    for subject, refusal in access.probe(root):
        if refusal is None:
            yield ok(subject, "works")
        else:
            what, _, remedy = str(refusal).partition(": ")
            yield problem(subject, what, remedy)
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
        what = "no hierarchy with cpusets is mounted: jobs cannot be found by cgroup"
        remedy = "mount cgroup2 on /sys/fs/cgroup and enable cpuset in cgroup.subtree_control"
        yield problem("cgroups", what, remedy)
    for each in found:
        yield ok("cgroups", f"version {each.version} at {each.path}")
    if all(each.version == 2 for each in found):  # else version 1 may have them
        for each in found:
            yield from _controllers(each.path)


def _controllers(top: Path) -> Iterable[Finding]:
    enabled = (top / "cgroup.subtree_control").read_text().split()
    for name, without in (
        ("cpuset", "jobs' processors and nodes cannot be fenced in, or their change seen"),
        ("memory", "metrics cannot tell where jobs' memory lies"),
    ):
        if name not in enabled:
            what = f"the {name} controller is not enabled below {top}: {without}"
            remedy = f"echo +{name} > {top}/cgroup.subtree_control, or let the scheduler do it"
            yield note("cgroups", what, remedy)


def _plugins(plugins: Plugins) -> Iterable[Finding]:
    for each in plugins.problems:
        remedy = "mend or remove its package, or name it in plugins.disabled"
        yield problem(f"plug-in {each.source}", each.what, remedy)


def _configuration(config: Config, plugins: Plugins) -> Iterable[Finding]:
    yield ok("configuration", str(config.source) if config.source else "none; the defaults hold")
    for choose, name in (
        (plugins.strategy, config.relocation.strategy),
        (plugins.mapper, config.relocation.mapper),
        (plugins.backend, config.relocation.backend),
    ):
        try:
            choose(name)
        except SchedhookError as error:
            yield problem("configuration", str(error), "choose one of `schedhook plugins`")


def _told_by_plugins(plugins: Plugins, root: Path) -> Iterable[Finding]:
    for source, answer in plugins.ask("schedhook_doctor", root=root):
        found = answer if isinstance(answer, (list, tuple)) else [answer]
        for each in found:
            if isinstance(each, Finding):
                yield each
            else:
                what = str(each) if isinstance(each, SchedhookError) else f"answered {each!r}"
                yield problem(f"plug-in {source}", what, "tell whoever made it")


def _number(path: Path) -> int:
    """What a sysctl file holds, 0 where there is none."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return 0
