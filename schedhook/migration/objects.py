"""Shared-memory objects of the processes that move: their pages that no process maps.

A relocation counts and moves them like a process's pages, in sweeps of the object.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from schedhook.migration.census import Census
from schedhook.migration.processes import MovingObject, MovingProcess
from schedhook.migration.selection import ProcessSelection, Selection, select
from schedhook.roles.backend import Backend, SharedObject, Target
from schedhook.values.errors import BackendError, NoPermissionError, ProcessGoneError
from schedhook.values.model import Area, MemoryKind
from schedhook.values.objects import ObjectId
from schedhook.values.sets import NodeSet


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What was read of one object."""

    shared: SharedObject
    areas: tuple[Area, ...] = ()
    """Its pages that no process maps, as offsets in the object; none or one area."""
    unread: int = 0
    """The most bytes that it can have and that no process maps, if it could not be looked into."""
    problem: str | None = None
    """Why it could not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unread:
    """An object that could not be looked into."""

    pid: int
    """A process that maps it."""
    most: int
    """The most bytes that it can have and that no process maps."""
    why: str


def read_objects(
    backend: Backend, targets: Iterable[Target], areas_by_pid: Mapping[int, Sequence[Area]]
) -> Iterator[Reading]:
    """Read each object that the processes of `targets` map, after their areas were read.

    An object that one process maps whole is not looked into.
    """
    mapped = _most_mapped(areas_by_pid.values())
    for shared in backend.shared_objects(targets):
        most = mapped.get(shared.object_id, 0)
        unread = shared.span - most
        try:
            unread = shared.allocated() - most
            yield Reading(shared=shared, areas=shared.areas() if unread > 0 else ())
        except ProcessGoneError:
            continue
        except (NoPermissionError, BackendError) as error:
            yield Reading(shared=shared, unread=max(0, unread), problem=str(error))


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
        by_pid = {process.pid: process for process in processes if not process.gone}
        areas = {pid: process.selection.areas for pid, process in by_pid.items()}
        targets = [process.target for process in by_pid.values()]
        found = {
            each.shared.object_id: each for each in read_objects(self._backend, targets, areas)
        }
        self.unread = [
            Unread(pid=each.shared.pids[0], most=each.unread, why=each.problem)
            for each in found.values()
            if each.problem and each.unread
            if MemoryKind.SHMEM in self._selection.kinds
        ]
        for object_id, record in self._known.items():
            if object_id not in found:
                self._select(record, ())
                record.gone = True
        for object_id, each in found.items():
            if object_id not in self._known and each.areas:
                self._known[object_id] = record = MovingObject(target=each.shared)
                by_pid[each.shared.pids[0]].objects.append(record)
            if object_id in self._known:
                record = self._known[object_id]
                record.target, record.gone = each.shared, False
                self._select(record, each.areas)

    def _select(self, record: MovingObject, areas: Sequence[Area]) -> None:
        pid = record.target.pids[0]
        record.selection = select_unmapped(
            pid, areas, self._sources, self._selection, self._backend
        )


def select_unmapped(
    pid: int, areas: Sequence[Area], sources: NodeSet, selection: Selection, backend: Backend
) -> ProcessSelection:
    """Select what to move of an object's pages that no process maps, as pages of process `pid`."""
    census = Census(backend, lambda _: None)  # nothing else holds these pages
    return select({pid: areas}, sources, selection, census)[pid]


def _most_mapped(processes: Iterable[Sequence[Area]]) -> Mapping[ObjectId, int]:
    """Return for each object the most bytes of it that one process has in its page tables."""
    most: dict[ObjectId, int] = {}
    for areas in processes:
        by_object: dict[ObjectId, list[Area]] = {}
        for area in areas:
            if area.is_shared and area.object_id:
                by_object.setdefault(area.object_id, []).append(area)
        for object_id, its in by_object.items():
            size = sum(area.resident for area in _apart(its))
            most[object_id] = max(size, most.get(object_id, 0))
    return most


def _apart(areas: Sequence[Area]) -> Iterator[Area]:
    """Yield areas of one object, but none that maps a part of another one's."""
    end = -1
    for area in sorted(areas, key=lambda each: each.offset):
        if area.offset >= end:
            end = area.offset + area.size
            yield area
