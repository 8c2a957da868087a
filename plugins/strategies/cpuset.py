"""Strategy `cpuset`: rewrite the job's cpuset.mems, so that the kernel moves the memory.

The kernel does not report how much it moved, and it kills the job if a node is full. So
cpuset.mems is widened first and narrowed only if what must arrive fits on the new nodes; what the
kernel left behind is moved page by page. The kernel rebinds memory policies too, by rank and not by
the node map, so a change that the map does not say is avoided.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from schedhook import StrategyPlugin, hookimpl
from schedhook.migration.move import Move
from schedhook.values.errors import ConfigError, RefusedError, SchedhookError
from schedhook.values.sets import NodeSet
from schedhook_plugins.strategies.cpuset_policies import (
    explain_narrowing,
    explain_undoing,
    explain_widening,
)
from schedhook_plugins.strategies.cpuset_tree import CpusetTree, find_tree

_MIB = 1 << 20
_LEAST_FREE = 16 * _MIB
"""Bytes that must stay free on each new node for a cpuset to be narrowed, whatever the reserve."""
_OPTION = "allow_blocking"
_DEFERRED = b" flush_migrate_mm_task_workfn"
"""A function of kernels that wait for moved memory without holding the lock on all cgroups."""


def check(work: Move) -> None:
    """Raise RefusedError if cpusets cannot do this, ConfigError for wrong plug-in options."""
    if not work.takes_all:
        raise RefusedError(
            "strategy cpuset moves all memory of a cgroup: leave out --kinds and --shared none, or"
            " use move-pages"
        )
    allowed = _allowed_to_block(work)
    tree = find_tree(work)
    if why := explain_widening(tree, work):
        raise RefusedError(f"strategy cpuset: {why}; use move-pages")
    if tree.vacated and not allowed and _may_block(work.root):
        raise RefusedError(
            "strategy cpuset: on this kernel every job or service that starts on the host may have"
            f" to wait while a cpuset's memory moves; use move-pages, or set {_OPTION} = true in"
            " [plugins.options.cpuset]"
        )


def move(work: Move) -> None:
    """Widen, let the kernel move what it can, sweep the rest, and narrow if all of it fits."""
    tree = find_tree(work)
    if tree.vacated and _may_block(work.root):
        work.notes.append(
            "this kernel may keep other jobs and services from starting while a cpuset's memory"
            " moves"
        )
    by_kernel = 0
    with _rolled_back_on_failure(tree, work):
        tree.widen()
        if explain_narrowing(tree, work):  # and the note below says why
            work.sweep()
        elif why := _not_by_kernel(tree, work):
            work.notes.append(f"{why}: moved page by page before cpuset.mems was narrowed")
            work.sweep()
        else:
            by_kernel = work.observe(tree.narrow)
            if work.options.sweep_leftovers:
                work.sweep()
        if why := explain_narrowing(tree, work) or _tight(tree, work):
            tree.widen()
            work.notes.append(f"cpuset.mems was left wide: {why}")
        else:
            tree.narrow()
            work.expire()
            if undone := explain_undoing(tree, work):
                work.notes.append(undone)
    parts = [part for process in work.processes for part in process.parts]
    swept = sum(sum(part.moved.values()) for part in parts) - by_kernel
    work.notes.append(
        f"cpuset.mems of {tree}: the kernel moved {by_kernel / _MIB:.1f} MiB, the sweep"
        f" {swept / _MIB:.1f} MiB"
    )


def _allowed_to_block(work: Move) -> bool:
    allowed = work.plugin_options.get(_OPTION, False)
    if not isinstance(allowed, bool):
        raise ConfigError(f"[plugins.options.cpuset] {_OPTION}: must be true or false")
    return allowed


def _may_block(root: Path) -> bool:
    """Return whether a process that enters a cpuset holds the lock on all cgroups while it waits.

    It waits for all memory that cpusets are moving at the time: kernels before 6.18, unless the
    change was backported.
    """
    try:
        return _DEFERRED not in (root / "proc/kallsyms").read_bytes()
    except OSError:
        return True


def _not_by_kernel(tree: CpusetTree, work: Move) -> str | None:
    """Return why the kernel must not move these pages when cpuset.mems narrows; None if it may."""
    if work.options.is_throttled:
        return "the kernel cannot keep to a bandwidth or to short calls"
    if not tree.kernel_keeps_to(work.node_map):
        return "the kernel pairs nodes by their order, not by this map"
    return _tight(tree, work)


def _tight(tree: CpusetTree, work: Move) -> str | None:
    """Return which new node would be too full with all that must still arrive; None if none."""
    if not tree.vacated:
        return None
    work.refresh()
    pairs = work.node_map.moves
    coming = dict.fromkeys(work.node_map.destinations, _files_of_others(work))
    for process in work.processes:
        pools = process.selection.huge_on(tree.vacated)  # huge pages have pools of their own
        for old, size in process.selection.on(tree.vacated).items():
            coming[pairs[old]] += size - pools.get(old, 0)
    reserve = work.options.reserve
    least = max(reserve, _LEAST_FREE)
    for node, size in coming.items():
        free = work.headroom.balance(node, tree.vacated) + reserve
        if free - size < least:
            return (
                f"node {node} has {max(free, 0) / _MIB:.1f} MiB free to which no cgroup is"
                f" entitled, {size / _MIB:.1f} MiB must arrive, and {least / _MIB:.1f} MiB are kept"
                " in reserve"
            )
    return None


def _files_of_others(work: Move) -> int:
    """Return the bytes of files that other processes of the host map too.

    The request leaves them alone, but the kernel moves them. They are the same for all processes
    of a job.
    """
    return max((sum(each.selection.kept.values()) for each in work.processes), default=0)


@contextlib.contextmanager
def _rolled_back_on_failure(tree: CpusetTree, work: Move) -> Iterator[None]:
    try:
        yield
    except SchedhookError as error:
        raise SchedhookError(f"{error}; {_roll_back(tree, work)}") from error
    except BaseException:
        work.notes.append(_roll_back(tree, work))
        raise


def _roll_back(tree: CpusetTree, work: Move) -> str:
    """Restore cpuset.mems, and return a sentence on the result.

    The kernel then brings the memory back. If that has no room, cpuset.mems is left wide.
    """
    try:
        if tight := _no_way_back(tree, work):
            tree.widen()
            return f"cpuset.mems was left wide, not restored: {tight}"
        if work.node_map.overlaps:
            tree.restore()
        else:
            work.observe(tree.restore)
    except SchedhookError as error:
        return f"cpuset.mems could not be restored: {error}"
    return "cpuset.mems was restored"


def _no_way_back(tree: CpusetTree, work: Move) -> str | None:
    """Return why the old nodes have no room for what lies on the new ones; None if they have."""
    before = NodeSet(node for each in tree.changes for node in each.before)
    added = NodeSet(node for each in tree.changes for node in each.after) - before
    work.refresh()
    back = sum(
        size
        for process in work.processes
        for node, size in process.selection.residency.items()
        if node in added
    )
    free = sum(work.topology().room(node) for node in before)
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
            options=frozenset({_OPTION}),
            changes_cpuset=True,
        )
    ]
