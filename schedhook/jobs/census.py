"""Select and count the memory of any processes, each page once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from schedhook.backends.native.backend import NativeBackend
from schedhook.backends.native.shared_object import shared_memory
from schedhook.migration.census import Census
from schedhook.migration.held import HeldTargets
from schedhook.migration.objects import read_objects, select_unmapped
from schedhook.migration.selection import ProcessSelection, Selection, select
from schedhook.values.errors import SchedhookError
from schedhook.values.model import Area
from schedhook.values.sets import NodeSet


def select_all(
    areas: Mapping[int, Sequence[Area]], root: Path
) -> tuple[dict[int, ProcessSelection], bool]:
    """Return what a relocation would move by default, and what not, of all memory, by process.

    Also return whether each page was counted once; else the sizes are upper bounds.
    """
    everywhere = NodeSet(node for its in areas.values() for area in its for node in area.residency)
    with HeldTargets(NativeBackend(root)) as held:
        borrowers = _borrowers(areas, held)
        owned = {pid: () if pid in borrowers else its for pid, its in areas.items()}
        census = Census(held.backend, held.get)
        found = select(owned, everywhere, Selection(), census)
        for pid, unmapped in _select_unmapped(owned, held, root):
            found[pid] = found[pid].joined(unmapped)
        return found, census.is_exact


def _select_unmapped(
    areas: Mapping[int, Sequence[Area]], held: HeldTargets, root: Path
) -> Iterator[tuple[int, ProcessSelection]]:
    """Yield the pages that no process maps, of each object that these processes map.

    They count with the first process that maps the object. Objects and processes that the caller
    may not look into are left out.
    """
    pids = (pid for pid in areas if _maps_shared_memory(pid, root))
    targets = [target for pid in pids if (target := held.get(pid))]
    for reading in read_objects(held.backend, targets, areas):
        for area in reading.areas:
            pid, nodes = reading.shared.pids[0], NodeSet(area.residency)
            yield pid, select_unmapped(pid, (area,), nodes, Selection(), held.backend)


def _maps_shared_memory(pid: int, root: Path) -> bool:
    with suppress(SchedhookError):  # it has exited, or belongs to another user
        return any(shared_memory(pid, root))
    return False


def _borrowers(areas: Mapping[int, Sequence[Area]], held: HeldTargets) -> set[int]:
    """Return the processes that use the memory of another one of these, vfork(2)."""
    by_layout: dict[tuple[tuple[int, int], ...], list[int]] = {}
    for pid, its in areas.items() if len(areas) > 1 else ():
        by_layout.setdefault(tuple((area.start, area.end) for area in its), []).append(pid)
    return {
        pid
        for layout, pids in by_layout.items()
        for pid in pids
        # Asking the kernel takes longer than comparing where their areas are.
        if layout
        and len(pids) > 1
        and (target := held.get(pid))
        and target.memory_owner_pid() in areas
    }
