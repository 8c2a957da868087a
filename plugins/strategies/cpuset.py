"""Strategy `cpuset`: the job's cpuset.mems is rewritten, and the kernel moves the memory.

The kernel throws away how much it moved and kills the job where a node is full. So cpuset.mems is
widened first, narrowed only while what has to come fits on the new nodes, and what the kernel left
behind is moved page by page.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from schedhook import StrategyPlugin, hookimpl
from schedhook.migration.move import Move
from schedhook.values.errors import ConfigError, RefusedError, SchedhookError
from schedhook.values.sets import NodeSet
from schedhook_plugins.strategies.cpuset_tree import CpusetTree, find_tree

_MIB = 1 << 20
_LEAST_FREE = 16 * _MIB
"""A cpuset is not narrowed to nodes with less room, whatever reserve is asked for."""
_OPTION = "allow_blocking"
_DEFERRED = b" flush_migrate_mm_task_workfn"
"""A function of kernels that wait for moved memory outside of the lock on all cgroups."""


def check(work: Move) -> None:
    """RefusedError where this is not for cpusets to do, ConfigError for wrong options."""
    if not work.takes_all:
        raise RefusedError(
            "strategy cpuset moves all memory of a cgroup: leave out --kinds and --shared none, or"
            " use move-pages"
        )
    allowed = _allowed_to_block(work)
    if find_tree(work).vacated and not allowed and _may_block(work.root):
        raise RefusedError(
            "strategy cpuset: on this kernel every start of a job or service on the host may have"
            f" to wait while a cpuset's memory moves; use move-pages, or set {_OPTION} = true in"
            " [plugins.options.cpuset]"
        )


def move(work: Move) -> None:
    """Widen; let the kernel move what it can; sweep the rest; narrow where all that fits."""
    tree = find_tree(work)
    if tree.vacated and _may_block(work.root):
        work.notes.append(
            "this kernel may keep other jobs and services from starting while a cpuset's memory"
            " moves"
        )
    by_kernel = 0
    with _put_back_on_failure(tree, work):
        tree.widen()
        if why := _not_by_kernel(tree, work):
            work.notes.append(f"{why}: moved page by page before cpuset.mems was narrowed")
            work.sweep()
        else:
            by_kernel = work.observe(tree.narrow)
            if work.options.sweep_leftovers:
                work.sweep()
        if tight := _tight(tree, work):
            tree.widen()
            work.notes.append(f"cpuset.mems was left wide: {tight}")
        else:
            tree.narrow()
    swept = sum(sum(each.moved.values()) for each in work.processes) - by_kernel
    work.notes.append(
        f"cpuset.mems of {tree}: the kernel moved {by_kernel / _MIB:.1f} MiB, the sweep"
        f" {swept / _MIB:.1f} MiB"
    )


def _allowed_to_block(work: Move) -> bool:
    unknown = work.plugin_options.keys() - {_OPTION}
    allowed = work.plugin_options.get(_OPTION, False)
    if unknown or not isinstance(allowed, bool):
        raise ConfigError(f"[plugins.options.cpuset] has one key, {_OPTION}: true or false")
    return allowed


def _may_block(root: Path) -> bool:
    """Whether a process that enters a cpuset waits, with the lock on all cgroups, for whatever
    memory cpusets are moving: kernels before 6.18 without that change."""
    try:
        return _DEFERRED not in (root / "proc/kallsyms").read_bytes()
    except OSError:
        return True


def _not_by_kernel(tree: CpusetTree, work: Move) -> str | None:
    """Why narrowing cpuset.mems is not the way to move these pages; None where it is."""
    options = work.options
    if options.bandwidth or options.limits.call_seconds:
        return "the kernel cannot be held to a bandwidth or to short calls"
    if not tree.kernel_keeps_to(work.node_map):
        return "the kernel pairs nodes by their order, not by this map"
    return _tight(tree, work)


def _tight(tree: CpusetTree, work: Move) -> str | None:
    """Which new node would be nearly full with all that has yet to come; None where none would."""
    if not tree.vacated:
        return None
    work.refresh()
    pairs, topology = work.node_map.moves, work.topology()
    coming = dict.fromkeys(work.node_map.destinations, _files_of_others(work))
    for process in work.processes:
        pools = process.selection.huge_on(tree.vacated)  # huge pages have free ones of their own
        for old, size in process.selection.on(tree.vacated).items():
            coming[pairs[old]] += size - pools.get(old, 0)
    least = max(work.options.reserve, _LEAST_FREE)
    for node, size in coming.items():
        free = topology.free(node)
        if free - size < least:
            return (
                f"node {node} has {free / _MIB:.1f} MiB free, {size / _MIB:.1f} MiB have to come,"
                f" and {least / _MIB:.1f} MiB are kept in reserve"
            )
    return None


def _files_of_others(work: Move) -> int:
    """Bytes of files that the host's other processes map, too: nobody asks for them, and the
    kernel moves them. They are the same ones for all processes of a job."""
    return max((sum(each.selection.kept.values()) for each in work.processes), default=0)


@contextlib.contextmanager
def _put_back_on_failure(tree: CpusetTree, work: Move) -> Iterator[None]:
    try:
        yield
    except SchedhookError as error:
        raise SchedhookError(f"{error}; {_put_back(tree, work)}") from error
    except BaseException:
        work.notes.append(_put_back(tree, work))
        raise


def _put_back(tree: CpusetTree, work: Move) -> str:
    """What became of cpuset.mems. The kernel brings the memory back where that has room."""
    try:
        if tight := _no_way_back(tree, work):
            tree.widen()
            return f"cpuset.mems was left wide, not put back: {tight}"
        if work.node_map.overlaps:
            tree.restore()
        else:
            work.observe(tree.restore)
    except SchedhookError as error:
        return f"cpuset.mems could not be put back: {error}"
    return "cpuset.mems was put back"


def _no_way_back(tree: CpusetTree, work: Move) -> str | None:
    """Why the nodes of before could not take what lies on new ones; None where they could."""
    before = NodeSet(node for level in tree.levels for node in level.before)
    added = NodeSet(node for level in tree.levels for node in level.after) - before
    work.refresh()
    back = sum(
        size
        for process in work.processes
        for node, size in process.selection.residency.items()
        if node in added
    )
    free = sum(work.topology().free(node) for node in before)
    if not back or free - back >= _LEAST_FREE:
        return None
    return f"node {before} has {free / _MIB:.1f} MiB free, {back / _MIB:.1f} MiB would come back"


@hookimpl
def schedhook_strategies() -> list[StrategyPlugin]:
    return [
        StrategyPlugin(
            name="cpuset",
            summary="by the kernel, at a change of cpuset.mems, leftovers page by page (cpuset(7))",
            move=move,
            check=check,
            changes_cpuset=True,
        )
    ]
