"""Select the memory of each process that a relocation moves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from schedhook.migration.census import Census, Share, find_common, mapped_twice
from schedhook.roles.backend import Part
from schedhook.values.extents import Extents
from schedhook.values.model import Area, MemoryKind, Residency, Shared
from schedhook.values.objects import ObjectId
from schedhook.values.sets import NodeSet
from schedhook.values.sizes import sum_sizes

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
        other processes map too (the C library's, for instance, also if the host's programs are on
        tmpfs) belong to the host more than to the job; a process's own copies of them are the
        job's, also after fork(2).
        """
        if area.kind not in self.kinds:
            return area.kind.value
        is_shared_memory = area.kind is MemoryKind.SHMEM and area.is_shared
        if (
            area.kind in (MemoryKind.FILE, MemoryKind.SHMEM)
            and not is_shared_memory
            and area.object_id is not None
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
    """An area, or one part of its pages, that must move, or that the request leaves alone."""

    area: Area
    counted: Residency
    """The bytes by node that count with this area: of the job's pages, each once."""
    here: Residency
    """The same of the process's pages, each once."""
    only: Extents | None = None
    """The pages that count with this area; None: all of its pages."""
    is_common: bool = False
    """Whether other areas of the job may hold some of the pages."""
    shared: bool = False
    """Also move pages that other processes map."""

    @property
    def pages(self) -> Extents | None:
        """Where the pages are that count with this area; None: anywhere in it."""
        return self.area.parts if self.only is None else self.only


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSelection:
    """What a relocation moves of one process, from one reading of its areas."""

    residency: Mapping[int, int] = field(default_factory=dict)
    """All of the process's bytes by node, selected or not, each page once."""
    selected: tuple[Selected, ...] = ()
    unselected: tuple[Selected, ...] = ()
    """What the request leaves alone on source nodes."""
    kept: Mapping[str, int] = field(default_factory=dict)
    """The bytes of `unselected` on source nodes, by reason (a value of WHY_KEPT)."""
    areas: Sequence[Area] = ()
    """All areas that were read, selected or not."""

    @property
    def all_items(self) -> tuple[Selected, ...]:
        """What is selected, and what is not."""
        return self.selected + self.unselected

    def joined(self, more: ProcessSelection) -> ProcessSelection:
        """Return both together, as of one process."""
        return ProcessSelection(
            residency=sum_sizes((self.residency, more.residency)),
            selected=self.selected + more.selected,
            unselected=self.unselected + more.unselected,
            kept=sum_sizes((self.kept, more.kept)),
            areas=(*self.areas, *more.areas),
        )

    def on(self, nodes: NodeSet, *, common: bool | None = None) -> dict[int, int]:
        """Return the selected bytes on each of `nodes` that are counted with this process.

        `common`: only of areas that do, or do not, have pages of others as well.
        """
        return _sum_on(nodes, (item for item in self.selected if common in (None, item.is_common)))

    def huge_on(self, nodes: NodeSet) -> dict[int, int]:
        """Return the same for pages of huge-page pools only."""
        return _sum_on(nodes, (item for item in self.selected if item.area.kind is MemoryKind.HUGE))


def _sum_on(nodes: NodeSet, items: Iterable[Selected]) -> dict[int, int]:
    total: dict[int, int] = {}
    for item in items:
        for node, size in item.counted.items():
            if node in nodes:
                total[node] = total.get(node, 0) + size
    return total


def select(
    areas_by_pid: Mapping[int, Sequence[Area]],
    sources: NodeSet,
    selection: Selection,
    census: Census,
) -> dict[int, ProcessSelection]:
    """Select the areas to move of all processes of a job at once, by pid.

    A page that several areas hold is counted, and moved, with the one that has most pages.
    """
    mappers = _count_mappers(areas_by_pid.values())
    common = find_common(areas_by_pid)
    result, all_pieces = {}, list[_Piece]()
    for pid, areas in areas_by_pid.items():
        own = _count_twice_mapped(pid, areas, census)
        pieces = list[_Piece]()
        for area in areas:
            if area.resident_on(sources):
                why = selection.why_kept(area, mappers.get(area.object_id, 1))
                is_common = (pid, area.start) in common
                here = own.get(area.start, area.residency)
                whole = _Piece(pid, area, Part.ALL, why, here, is_common=is_common)
                pieces += _split(whole, census) if why == _SHARED_FILE else [whole]
        all_pieces += pieces
        result[pid] = areas, own, pieces
    found = (piece for piece in all_pieces if piece.is_common)
    for piece in sorted(found, key=lambda each: -each.area.resident):
        piece.share = census.count(piece.pid, piece.area, piece.part)
    return {
        pid: _process_selection(areas, own, pieces, sources, shared=selection.moves_shared_pages)
        for pid, (areas, own, pieces) in result.items()
    }


@dataclass(slots=True)
class _Piece:
    """A part of an area's pages, of which all must move or none."""

    pid: int
    area: Area
    part: Part
    why: str | None
    """Why the request leaves it alone."""
    here: Residency
    share: Share | None = None
    """None as long as it was not counted: then all of its pages count."""
    is_common: bool = False

    def selected(self, *, shared: bool) -> Selected:
        share = self.share
        return Selected(
            area=self.area,
            counted=share.residency if share else self.here,
            here=self.here,
            only=share.only if share else None,
            is_common=self.is_common,
            shared=shared,
        )


def _split(piece: _Piece, census: Census) -> list[_Piece]:
    """Part the process's own copies, which move, from the pages of a file that others map too."""
    area = piece.area
    own = census.count_alone(piece.pid, area, Part.COPIES) if area.copied else None
    if own is None:
        return [piece]
    less = {node: size - own.residency.get(node, 0) for node, size in piece.here.items()}
    rest = {node: size for node, size in less.items() if size > 0}
    copies = replace(piece, part=Part.COPIES, why=None, here=own.residency, share=own)
    return [copies, replace(piece, part=Part.ORIGINALS, here=rest)]


def _count_twice_mapped(pid: int, areas: Sequence[Area], census: Census) -> dict[int, Residency]:
    """Return what counts with each area of a process that maps the same as another one of it."""
    twice, alone = mapped_twice(areas), census.restart()
    return {area.start: alone.count(pid, area).residency for area in areas if area.start in twice}


def _process_selection(
    areas: Sequence[Area],
    own: Mapping[int, Residency],
    pieces: Iterable[_Piece],
    sources: NodeSet,
    *,
    shared: bool,
) -> ProcessSelection:
    selected, unselected, kept = [], [], dict[str, int]()
    for piece in pieces:
        item = piece.selected(shared=shared)
        if piece.why is None:
            selected.append(item)
        else:
            unselected.append(item)
            size = sum(_sum_on(sources, [item]).values())
            kept[piece.why] = kept.get(piece.why, 0) + size
    return ProcessSelection(
        residency=sum_sizes(own.get(area.start, area.residency) for area in areas),
        selected=tuple(selected),
        unselected=tuple(unselected),
        kept={why: size for why, size in kept.items() if size},
        areas=areas,
    )


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
