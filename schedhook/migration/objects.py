"""Shared-memory objects of the processes that move: their pages that no process maps.

A relocation counts and moves them like a process's pages, in sweeps of the object.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from schedhook.migration.census import Census
from schedhook.migration.processes import MovingObject, MovingProcess
from schedhook.migration.selection import Selection, select
from schedhook.roles.backend import Backend, SharedObject
from schedhook.values.errors import BackendError, NoPermissionError, ProcessGoneError
from schedhook.values.model import Area, MemoryKind
from schedhook.values.objects import ObjectId
from schedhook.values.sets import NodeSet


@dataclass(frozen=True, slots=True, kw_only=True)
class Unread:
    """An object that could not be looked into."""

    pid: int
    """A process that maps it."""
    most: int
    """The most bytes that it can have and that no process maps."""
    why: str


class Objects:
    """The objects that the processes of a relocation map, each counted with one of them."""

    def __init__(self, backend: Backend, sources: NodeSet, selection: Selection) -> None:
        self.unread: list[Unread] = []
        """The objects that the last reading could not look into."""
        self._backend = backend
        self._sources = sources
        self._selection = selection
        self._known: dict[ObjectId, MovingObject] = {}

    def refresh(self, processes: Sequence[MovingProcess]) -> None:
        """Read where the pages lie that no process maps.

        Each process's own areas were read just before.
        """
        self.unread.clear()
        by_pid = {process.pid: process for process in processes if not process.gone}
        mapped = _most_mapped(by_pid)
        found = {
            each.object_id: each
            for each in self._backend.shared_objects([each.target for each in by_pid.values()])
        }
        for object_id, record in self._known.items():
            if object_id not in found:
                self._select(record, ())
                record.gone = True
        for object_id, shared in found.items():
            areas = self._read(shared, mapped.get(object_id, 0))
            known = self._known.get(object_id)
            if known is None and areas:
                known = self._known[object_id] = MovingObject(target=shared)
                by_pid[shared.pids[0]].objects.append(known)
            if known is not None:
                known.target, known.gone = shared, False
                self._select(known, areas)

    def _read(self, shared: SharedObject, mapped: int) -> tuple[Area, ...]:
        """Return the object's area. Of its bytes, one process maps `mapped`."""
        try:
            return shared.areas() if shared.allocated() > mapped else ()
        except ProcessGoneError:
            return ()
        except (NoPermissionError, BackendError) as error:
            if shared.span > mapped and MemoryKind.SHMEM in self._selection.kinds:
                most = shared.span - mapped
                self.unread.append(Unread(pid=shared.pids[0], most=most, why=str(error)))
            return ()

    def _select(self, record: MovingObject, areas: Sequence[Area]) -> None:
        pid = record.target.pids[0]
        census = Census(self._backend, lambda _: None)  # nothing else holds these pages
        found = select({pid: areas}, self._sources, self._selection, census)
        record.selection = found[pid]


def _most_mapped(processes: Mapping[int, MovingProcess]) -> Mapping[ObjectId, int]:
    """Return for each object the most bytes of it that one process has in its page tables."""
    most: dict[ObjectId, int] = {}
    for process in processes.values():
        by_object: dict[ObjectId, list[Area]] = {}
        for area in process.selection.areas:
            if area.is_shared and area.object_id:
                by_object.setdefault(area.object_id, []).append(area)
        for object_id, areas in by_object.items():
            size = sum(area.resident for area in _apart(areas))
            most[object_id] = max(size, most.get(object_id, 0))
    return most


def _apart(areas: Sequence[Area]) -> Iterator[Area]:
    """Yield areas of one object, but none that maps a part of another one's."""
    end = -1
    for area in sorted(areas, key=lambda each: each.offset):
        if area.offset >= end:
            end = area.offset + area.size
            yield area
