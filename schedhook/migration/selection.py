"""Select the memory of each process that a relocation moves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from schedhook.values.model import Area, MemoryKind, Shared, add_residency
from schedhook.values.objects import ObjectId
from schedhook.values.sets import NodeSet

_Window = tuple[ObjectId, int]
_SHARED_FILE = "shared-file"
LEFT_BY_STRATEGY = "left-by-strategy"
UNREACHABLE = "hidden"
WHY_KEPT = (*(kind.value for kind in MemoryKind), _SHARED_FILE, LEFT_BY_STRATEGY, UNREACHABLE)
"""Why memory on an old node is left alone: the keys of a report's `bytes_kept`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which of the memory on the source nodes to move.

    `may_move_shared`: the caller has CAP_SYS_NICE, without which pages that several processes map
    cannot move, whatever the request says.
    """

    kinds: frozenset[MemoryKind] = frozenset(MemoryKind)
    shared: Shared = Shared.JOB
    may_move_shared: bool = True

    @property
    def takes_all(self) -> bool:
        """Whether the request leaves out no kind of memory."""
        return self.kinds == frozenset(MemoryKind) and self.shared is not Shared.NONE

    def why_kept(self, area: Area, mappers: int) -> str | None:
        """Return why the request leaves the area alone; None if it must move.

        `mappers` is how many of the job's processes map the same object. Pages of a file that
        other processes map too (the C library's, for instance) belong to the host more than to
        the job.
        """
        if area.kind not in self.kinds:
            return area.kind.value
        if (
            area.kind is MemoryKind.FILE
            and area.most_mappers > mappers
            and self.shared is Shared.JOB
        ):
            return _SHARED_FILE
        return None

    @property
    def moves_shared_pages(self) -> bool:
        """Whether selected pages that several processes map move too (MPOL_MF_MOVE_ALL).

        That applies to areas that only one process maps at present, too: a job that forks shares
        its pages for a moment.
        """
        return self.may_move_shared and self.shared is not Shared.NONE


@dataclass(frozen=True, slots=True, kw_only=True)
class Selected:
    """An area that must move."""

    area: Area
    shared: bool
    """Also move pages that other processes map."""
    counted: bool
    """False if the same shared object is counted with another process of the job."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSelection:
    """What a relocation moves of one process, from one reading of its areas."""

    residency: Mapping[int, int] = field(default_factory=dict)
    """All of the process's bytes by node, selected or not."""
    selected: tuple[Selected, ...] = ()
    kept: Mapping[str, int] = field(default_factory=dict)
    """Bytes on source nodes that the request leaves alone, by reason (a value of WHY_KEPT)."""
    areas: Sequence[Area] = ()
    """All areas that were read, selected or not."""

    def on(self, nodes: NodeSet) -> dict[int, int]:
        """Return the selected bytes on each of `nodes` that are counted with this process."""
        return self._on(nodes, frozenset(MemoryKind))

    def huge_on(self, nodes: NodeSet) -> dict[int, int]:
        """Return the same for pages of huge-page pools only."""
        return self._on(nodes, frozenset({MemoryKind.HUGE}))

    def _on(self, nodes: NodeSet, kinds: frozenset[MemoryKind]) -> dict[int, int]:
        total: dict[int, int] = {}
        for item in self.selected:
            if item.counted and item.area.kind in kinds:
                for node, size in item.area.residency.items():
                    if node in nodes:
                        total[node] = total.get(node, 0) + size
        return total


def select(
    areas_by_pid: Mapping[int, Sequence[Area]], sources: NodeSet, selection: Selection
) -> dict[int, ProcessSelection]:
    """Select the areas to move of all processes of a job at once, by pid.

    A shared object is counted once, with the process that has most of it in its page tables. It
    is still swept in each process, since a page may be mapped in one of them only.
    """
    mappers = _count_mappers(areas_by_pid.values())
    owner = _owners(areas_by_pid)
    result = {}
    for pid, areas in areas_by_pid.items():
        residency: dict[int, int] = {}
        selected, kept = [], dict[str, int]()
        for area in areas:
            add_residency(residency, area.residency)
            on_sources = area.resident_on(sources)
            if not on_sources:
                continue
            count = mappers.get(area.object_id, 1)
            why = selection.why_kept(area, count)
            if why is not None:
                kept[why] = kept.get(why, 0) + on_sources
                continue
            selected.append(
                Selected(
                    area=area,
                    shared=selection.moves_shared_pages,
                    counted=not area.is_shared or owner.get(_window(area), pid) == pid,
                )
            )
        result[pid] = ProcessSelection(
            residency=residency, selected=tuple(selected), kept=kept, areas=areas
        )
    return result


def find_aliases(
    selections: Mapping[int, ProcessSelection],
) -> Callable[[int, Area], list[tuple[int, int]]]:
    """Return a function from (pid, area) to the other mappings of the area's shared memory.

    Each mapping is (pid, what to add to an address in the area to get the one there).
    """
    bases: dict[ObjectId, list[tuple[int, int]]] = {}
    for pid, selection in selections.items():
        for item in selection.selected:
            if item.area.is_shared and item.area.object_id:
                base = item.area.start - item.area.offset
                bases.setdefault(item.area.object_id, []).append((pid, base))

    def aliases(pid: int, area: Area) -> list[tuple[int, int]]:
        if not (area.is_shared and area.object_id):
            return []
        mine = area.start - area.offset
        known = dict.fromkeys(bases.get(area.object_id, ()))
        return [(other, base - mine) for other, base in known if (other, base) != (pid, mine)]

    return aliases


def _window(area: Area) -> _Window | None:
    """Return the object, and where in it the area begins; None without an object."""
    return (area.object_id, area.offset) if area.object_id else None


def _count_mappers(processes: Iterable[Sequence[Area]]) -> dict[ObjectId | None, int]:
    """Return how many mappers each object has, over all processes."""
    counts: dict[ObjectId | None, int] = {}
    for areas in processes:
        # A process may map the same part twice; its pages then have two mappers.
        seen: dict[_Window, int] = {}
        for area in areas:
            if window := _window(area):
                seen[window] = seen.get(window, 0) + 1
        most: dict[ObjectId, int] = {}
        for (object_id, _), times in seen.items():
            most[object_id] = max(most.get(object_id, 0), times)
        for object_id, times in most.items():
            counts[object_id] = counts.get(object_id, 0) + times
    return counts


def _owners(
    areas_by_pid: Mapping[int, Sequence[Area]],
) -> dict[_Window | None, int]:
    """Return the pid with which each shared object is counted."""
    owners: dict[_Window | None, tuple[int, int]] = {}
    for pid, areas in areas_by_pid.items():
        for area in areas:
            if area.is_shared and (window := _window(area)):
                best = owners.get(window)
                if best is None or area.resident > best[1]:
                    owners[window] = (pid, area.resident)
    return {key: pid for key, (pid, _) in owners.items()}
