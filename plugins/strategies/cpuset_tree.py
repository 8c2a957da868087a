"""The cpusets of the processes that move: their cpuset.mems now, and what it must become.

A child's cpuset must stay inside its parent's, so the tree is widened from the top and narrowed
from the bottom. A wider set moves nothing. A narrower one makes the kernel move pages, in version
1 only if cpuset.memory_migrate is 1; see cpuset(7) and update_nodemask() in the kernel's cpuset.c.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from schedhook.control.cpusets import write_nodes
from schedhook.host.cgroups import (
    Cgroup,
    cgroup_of,
    configured_nodes,
    effective_nodes,
    pids,
    resolve_cgroup,
    subtree,
)
from schedhook.host.vanishing import read_living
from schedhook.migration.move import Move
from schedhook.values.errors import RefusedError, SchedhookError
from schedhook.values.model import NodeMap
from schedhook.values.nodemap import kernel_rule
from schedhook.values.sets import NodeSet

_STRANGERS_SHOWN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class MemsChange:
    """A cgroup with cpuset.mems of its own, and the new value."""

    cgroup: Cgroup
    before: NodeSet
    after: NodeSet

    @property
    def wide(self) -> NodeSet:
        """The set that allows pages on both old and new nodes."""
        return self.before | self.after

    def kernel_keeps_to(self, pairs: Mapping[int, int]) -> bool:
        """Return whether narrowing from `wide` to `after` moves pages as the map says.

        The kernel pairs nodes by their order in the two sets.
        """
        rule = kernel_rule(self.wide, self.after)
        return all(rule[old] == pairs[old] for old in self.before if old in pairs)


@dataclass(frozen=True, slots=True, kw_only=True)
class CpusetTree:
    """The changes of all cgroups, parents first."""

    changes: Sequence[MemsChange]

    def kernel_keeps_to(self, node_map: NodeMap) -> bool:
        """Return whether narrowing moves all pages as the map says."""
        return not node_map.overlaps and all(
            each.kernel_keeps_to(node_map.moves) for each in self.changes
        )

    def widen(self) -> None:
        """Allow old and new nodes. Raise RefusedError or NoPermissionError, as all writers do."""
        for each in self.changes:
            write_nodes(each.cgroup, each.wide)

    def narrow(self) -> None:
        """Allow the new nodes only; return when the kernel has moved what it moves."""
        with self._kernel_moves():
            for each in reversed(self.changes):
                write_nodes(each.cgroup, each.after)

    def restore(self) -> None:
        """Allow the old nodes only; the kernel brings pages back."""
        with self._kernel_moves():
            self.widen()
            for each in reversed(self.changes):
                write_nodes(each.cgroup, each.before)

    @property
    def vacated(self) -> NodeSet:
        """Nodes that narrowing takes away from any of the cgroups."""
        return NodeSet(node for each in self.changes for node in each.wide - each.after)

    @contextlib.contextmanager
    def _kernel_moves(self) -> Iterator[None]:
        """Turn cpuset.memory_migrate of version 1 on for the block, if it is off."""
        files = [each.cgroup.path / "cpuset.memory_migrate" for each in self.changes]
        try:
            off = [file for file in files if file.exists() and file.read_text().strip() == "0"]
            for file in off:
                file.write_text("1")
        except OSError as error:
            raise RefusedError(f"cannot set {error.filename}: {error.strerror}") from error
        try:
            yield
        finally:
            for file in off:
                with contextlib.suppress(OSError):  # removed with the job
                    file.write_text("0")

    def __str__(self) -> str:
        return ", ".join(
            f"{each.cgroup.name} {each.before} → {each.after}" for each in self.changes
        )


def find_tree(work: Move) -> CpusetTree:
    """Return the cpusets of the processes of `work`, with the changes that the map needs.

    Raise RefusedError if other processes would be affected, or the map does not fit the cpusets.
    """
    pairs = work.node_map.pairs
    changes = []
    for top in _tops(work):
        _check_parent(top, work)
        for cgroup in _configured_below(top):
            before = configured_nodes(cgroup)
            after = NodeSet(pairs.get(node, node) for node in before)
            changes.append(MemsChange(cgroup=cgroup, before=before, after=after))
    reached = NodeSet(node for each in changes for node in each.after)
    if beyond := work.node_map.destinations - reached:
        allowed = NodeSet(node for each in changes for node in each.before)
        raise RefusedError(
            f"strategy cpuset: cpuset.mems of {_names(changes)} is {allowed}, so the map"
            f" {work.node_map} does not lead to node {beyond}; use move-pages"
        )
    return CpusetTree(changes=tuple(changes))


def _tops(work: Move) -> list[Cgroup]:
    if work.cgroup is not None:
        top = resolve_cgroup(work.cgroup, work.root)
        if not _may_have_own(top) or not configured_nodes(top):
            raise RefusedError(
                f"strategy cpuset: {top} has no cpuset.mems of its own; write one there, or use"
                " move-pages"
            )
        return [top]
    own = [process.pid for process in work.processes]
    found = read_living(own, lambda pid: _own_cpuset(pid, work.root))
    tops = {top.path: top for _, top in found}
    for top in tops.values():
        _check_members(top, work)
    # A job's steps may be nested; then the walk below the upper one finds the lower one.
    return [top for path, top in tops.items() if not any(each in tops for each in path.parents)]


def _own_cpuset(pid: int, root: Path) -> Cgroup:
    """Return the nearest cgroup, at or above the process's, with cpuset.mems of its own."""
    cgroup = cgroup_of(pid, root)
    while _may_have_own(cgroup):
        if configured_nodes(cgroup):
            return cgroup
        cgroup = _parent(cgroup)
    raise RefusedError(
        f"strategy cpuset: process {pid} is in no cgroup with cpuset.mems of its own; use"
        " move-pages"
    )


def _check_members(top: Cgroup, work: Move) -> None:
    # In this order: a process that starts in between is then found to belong.
    found = pids(top, work.root)
    others = sorted(set(found).difference(work.member_pids()))
    strangers = [pid for pid in others if (work.root / "proc" / str(pid)).exists()]
    if strangers:
        shown = ", ".join(map(str, strangers[:_STRANGERS_SHOWN]))
        more = " and others" if len(strangers) > _STRANGERS_SHOWN else ""
        raise RefusedError(
            f"strategy cpuset: {top} has other processes too ({shown}{more}); move all of them"
            " with --cgroup, or use move-pages"
        )


def _check_parent(top: Cgroup, work: Move) -> None:
    parent = _parent(top)
    allowed = effective_nodes(parent, work.root)
    if lacking := work.node_map.destinations - allowed:
        raise RefusedError(
            f"strategy cpuset: {parent} allows node {allowed}, not {lacking}; widen its"
            " cpuset.mems first"
        )


def _configured_below(top: Cgroup) -> Iterator[Cgroup]:
    for cgroup in subtree(top):
        with contextlib.suppress(SchedhookError):  # it has ended
            if configured_nodes(cgroup):
                yield cgroup


def _may_have_own(cgroup: Cgroup) -> bool:
    """Return whether it is not the root cgroup, whose cpuset is the host's."""
    return cgroup.path != cgroup.mount


def _parent(cgroup: Cgroup) -> Cgroup:
    return replace(cgroup, path=cgroup.path.parent)


def _names(changes: Sequence[MemsChange]) -> str:
    return ", ".join(each.cgroup.name for each in changes)
