"""What a change of cpuset.mems does to the memory policies of the processes in the cpuset.

The kernel rebinds all of them by rank, whatever node map a relocation has: the n-th allowed node
becomes the n-th of the new set; see mpol_rebind_policy() in its mm/mempolicy.c.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from schedhook.host.cgroups import cgroup_of, configured_nodes
from schedhook.host.vanishing import read_living
from schedhook.migration.move import Move
from schedhook.migration.policies import ProcessPolicies, collect_policies
from schedhook.roles.backend import Target
from schedhook.values.errors import ProcessGoneError
from schedhook.values.policy import unwanted_changes
from schedhook.values.sets import NodeSet
from schedhook.values.text import join_some
from schedhook_plugins.strategies.cpuset_tree import CpusetTree, MemsChange


def explain_widening(tree: CpusetTree, work: Move) -> str | None:
    """Return which policies a wider cpuset.mems would change wrongly; None if it changes none."""
    return _explain(tree, work, lambda change: change.wide)


def explain_narrowing(tree: CpusetTree, work: Move) -> str | None:
    """Return the same for the new cpuset.mems."""
    return _explain(tree, work, lambda change: change.after)


def explain_undoing(tree: CpusetTree, work: Move) -> str | None:
    """Return which policies change back if cpuset.mems, now narrowed, is set to the old nodes."""
    back = set()
    for change, its in _policies(tree, work):
        back |= unwanted_changes(its.policies(), change.after, change.before, {})
    if not back:
        return None
    return (
        "memory policies have followed cpuset.mems; if it is set to what it was, as Slurm does with"
        f" a job's next step, the kernel changes them back: {join_some(sorted(back), 3)}"
    )


def _explain(tree: CpusetTree, work: Move, written: Callable[[MemsChange], NodeSet]) -> str | None:
    """Return what `written` would change in a way that the map does not say."""
    wrong = set()
    for change, its in _policies(tree, work):
        now, new = configured_nodes(change.cgroup), written(change)
        wrong |= unwanted_changes(its.policies(), now, new, work.node_map.moves)
        if its.unread and now != new:
            wrong.add(f"those of {its.unread} threads, which could not be read")
    if not wrong:
        return None
    nodes = NodeSet(node for change in tree.changes for node in written(change))
    return (
        f"with cpuset.mems {nodes} the kernel would change memory policies in a way that the map"
        f" does not say: {join_some(sorted(wrong), 3)}"
    )


def _policies(tree: CpusetTree, work: Move) -> Iterator[tuple[MemsChange, ProcessPolicies]]:
    """Yield the policies of each process, with the change that applies to the process."""
    by_path = {each.cgroup.path: each for each in tree.changes}
    targets = {process.pid: process.target for process in work.processes if not process.gone}
    for pid, cgroup in read_living(targets, lambda pid: cgroup_of(pid, work.root)):
        paths = (cgroup.path, *cgroup.path.parents)
        change = next((by_path[path] for path in paths if path in by_path), None)
        if change is not None:
            yield change, _read_policies(targets[pid])


def _read_policies(target: Target) -> ProcessPolicies:
    try:
        areas = target.areas()
        return collect_policies(areas, target.thread_policies(areas))
    except ProcessGoneError:
        return ProcessPolicies()
