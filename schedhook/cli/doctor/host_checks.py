"""Checks of the host: versions, nodes and their free memory, cgroups."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from pathlib import Path

from schedhook import __version__
from schedhook.cli.doctor.setup import Setup
from schedhook.host.cgroups import hierarchies
from schedhook.host.processes import all_pids, answers, read_command
from schedhook.host.topology import Node, read_topology
from schedhook.plugins.findings import Finding, Severity, note, ok, problem
from schedhook.plugins.sources import BUILT_IN
from schedhook.values.text import join_some

TRIED_KERNELS = ("6.1", "6.12", "7.2", "7.3")
"""The versions of Linux that README.md names."""


def check_versions(setup: Setup) -> Iterable[Finding]:
    """Name the versions of schedhook, Python and Linux, and the packages of plug-ins."""
    kernel, python = _kernel_release(setup.root), platform.python_version()
    yield ok("versions", f"schedhook {__version__}, Python {python}, Linux {kernel}")
    yield from _check_kernel(kernel)
    packages = {str(each.source.package) for each in setup.plugins.listing()} - {BUILT_IN}
    if packages:
        yield ok("plug-ins", ", ".join(sorted(packages)))


def _kernel_release(root: Path) -> str:
    try:
        return (root / "proc/sys/kernel/osrelease").read_text().strip()
    except OSError:
        return platform.release()


def _check_kernel(release: str) -> Iterable[Finding]:
    """Say if schedhook was not tried with this kernel; it is never refused."""
    version = ".".join(release.partition("-")[0].split(".")[:2])
    tried = ", ".join(TRIED_KERNELS)
    if version in TRIED_KERNELS:
        yield ok("kernel", f"Linux {version} is among the kernels that were tried ({tried})")
        return
    what = f"not tried with Linux {version}: pages may stay for other reasons than documented"
    yield note("kernel", what, f"run `make numa` on it, or a kernel that was tried ({tried})")


def check_nodes(setup: Setup) -> Iterable[Finding]:
    """Find hosts with one node, and nodes too full to move memory to."""
    topology = read_topology(setup.root)
    nodes = topology.memory_nodes
    if len(nodes) < 2:
        what = f"one node with memory ({nodes}): there is no other node to move memory to"
        yield note("nodes", what, "none needed: this host does not need schedhook")
        return
    bare = topology.memory_only_nodes - topology.gpu_nodes
    what = f"{len(nodes)} nodes with memory ({nodes}), processors on {topology.cpu_nodes}"
    what += f", GPU memory on {topology.gpu_nodes}" if topology.gpu_nodes else ""
    what += f", no processors on {bare}" if bare else ""
    yield ok("nodes", what)
    reserve = setup.config.relocation.reserve_mb << 20
    for number in nodes:
        named_only = number not in topology.default_nodes
        yield _check_room(topology.node(number), reserve, named_only=named_only)


def _check_room(node: Node, reserve: int, *, named_only: bool) -> Finding:
    """Find out whether more than `reserve` bytes are free on the node.

    `named_only`: memory only goes there if a request names the node, so it may be full.
    """
    free, total, cache = (
        size >> 20 for size in (node.memory_free, node.memory_total, node.memory_reclaimable)
    )
    is_full = node.memory_free < reserve and not named_only
    kind = "memory of a GPU" if node.is_gpu else "no processors"
    return Finding(
        subject=f"node {node.number}",
        level=Severity.NOTE if is_full else Severity.OK,
        what=f"{free} of {total} MiB free, {cache} MiB clean cache"
        + (f"; {kind}: no destination unless it is named" if named_only else ""),
        remedy=f"free memory there: relocations to it are refused below {reserve >> 20} MiB"
        " (reserve_mb in [relocation])"
        if is_full
        else "",
    )


def check_processes(setup: Setup) -> Iterable[Finding]:
    """Name the processes that keep their memory's lock: it can be neither read nor moved."""
    pids = all_pids(setup.root)
    silent = [pid for pid in pids if not answers(pid, setup.root)]
    if not silent:
        yield ok("processes", f"all {len(pids)} answer")
        return
    named = [f"{pid} {read_command(pid, setup.root)}" for pid in silent]
    what = f"does not answer, and is left out: {join_some(named)}"
    remedy = (
        "/proc/PID/stack says where it waits, perhaps for a file server (FUSE, NFS) that hangs: end"
        " the server. Of one user's processes, four are tried at a time"
    )
    yield note("processes", what, remedy)


def check_cgroups(setup: Setup) -> Iterable[Finding]:
    """Find out whether jobs can be found by cgroup, and fenced in by it."""
    found = [
        each
        for each in hierarchies(setup.root)
        if each.version == 2 or (each.path / "cpuset.cpus").exists()
    ]
    if not found:
        what = "no hierarchy with cpusets is mounted: jobs cannot be found by cgroup"
        remedy = "mount cgroup2 on /sys/fs/cgroup and enable cpuset in cgroup.subtree_control"
        yield problem("cgroups", what, remedy)
    for each in found:
        yield ok("cgroups", f"version {each.version} at {each.path}")
    if all(each.version == 2 for each in found):  # else version 1 may have the controllers
        for each in found:
            yield from _check_controllers(each.path)


def _check_controllers(top: Path) -> Iterable[Finding]:
    enabled = (top / "cgroup.subtree_control").read_text().split()
    for name, without in (
        ("cpuset", "jobs cannot be bound to processors and nodes, nor changes of these be seen"),
        ("memory", "metrics cannot show where jobs' memory is"),
    ):
        if name not in enabled:
            what = f"the {name} controller is not enabled below {top}: {without}"
            remedy = f"echo +{name} > {top}/cgroup.subtree_control, or let the scheduler do it"
            yield note("cgroups", what, remedy)
