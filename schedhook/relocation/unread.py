"""Shared-memory objects that could not be looked into: how much of them no process maps.

What a cgroup is charged for shared memory, less what its processes map, is what they do not map.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from schedhook.host.cgroups import Cgroup, cgroup_of
from schedhook.host.memory_stat import read_shared_memory
from schedhook.host.vanishing import read_living
from schedhook.migration.move import Move
from schedhook.values.errors import SchedhookError
from schedhook.values.model import MemoryKind


def count_unmapped(move: Move, root: Path) -> None:
    """Set `unmapped` of the first process that maps an object which was not read.

    If other processes of its cgroup use shared memory too, the number is an upper bound.
    """
    unread = move.unread_objects
    if not unread:
        return
    most = sum(each.most for each in unread)
    charged = _charged(move, root)
    if charged is not None:
        most = min(most, max(0, charged - _known(move)))
    for process in move.processes:
        if process.pid == unread[0].pid:
            process.unmapped = most


def _charged(move: Move, root: Path) -> int | None:
    """Return the shared memory on source nodes that the objects' cgroups are charged for.

    None if the kernel does not say.
    """
    pids = {each.pid for each in move.unread_objects}
    found = list(read_living(pids, lambda pid: cgroup_of(pid, root), skipped=(SchedhookError,)))
    if len(found) < len(pids):
        return None
    total = 0
    for cgroup in _topmost(cgroup for _, cgroup in found):
        charged = read_shared_memory(cgroup)
        if charged is None:
            return None
        total += sum(size for node, size in charged.items() if node in move.sources)
    return total


def _topmost(cgroups: Iterable[Cgroup]) -> list[Cgroup]:
    """Return each of the cgroups once, and none that is below another one of them."""
    by_path = {cgroup.path: cgroup for cgroup in cgroups}
    return [
        cgroup
        for path, cgroup in by_path.items()
        if not any(parent in by_path for parent in path.parents)
    ]


def _known(move: Move) -> int:
    """Return the bytes of shared memory on source nodes that were read."""
    return sum(
        size
        for process in move.processes
        for part in process.parts
        for item in part.selection.selected
        if item.area.kind is MemoryKind.SHMEM
        for node, size in item.counted.items()
        if node in move.sources
    )
