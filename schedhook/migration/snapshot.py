"""Where pages lay before the first move, for a map whose old and new nodes overlap.

A page that has arrived looks like one that has yet to leave, and what moves together is not always
known: one folio can lie in several areas and processes. So a page moves only if it was on its old
node before anything moved, and the result is compared with that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from schedhook.migration.processes import MovingMemory, MovingProcess
from schedhook.migration.runs import clip, spread
from schedhook.migration.selection import Selected
from schedhook.migration.units import Unit, gather
from schedhook.migration.unreachable import unreachable_bytes
from schedhook.values.errors import ProcessGoneError
from schedhook.values.extents import Extents, PackedExtents
from schedhook.values.model import NodeMap


@dataclass(frozen=True, slots=True)
class _Place:
    """The pages in the part [start, end) of an area that lay on one old node."""

    item: Selected
    start: int
    end: int
    old: int
    pages: PackedExtents


@dataclass(slots=True)
class Comparison:
    """Where pages are now that were on old nodes before. Sizes in bytes."""

    moved: dict[tuple[int, int], int] = field(default_factory=dict)
    """Pages on their new node, by (old node, new node)."""
    stayed: int = 0
    """Pages still on their old node."""


class Snapshot:
    """The pages to move of all memory of a relocation, as they lay when it was made.

    It takes at most a bit for each base page and old node: 32 MiB for a node's terabyte of pages of
    4 KiB. Memory in long runs takes next to nothing.
    """

    def __init__(self, parts: Iterable[MovingMemory], node_map: NodeMap) -> None:
        self._moves = node_map.moves
        parts = list(parts)
        self._places = {id(part): list(self._find(part)) for part in parts}
        self._unseen = {
            id(part): unreachable_bytes(part, node_map.sources, only_unseen=True)
            for part in parts
            if isinstance(part, MovingProcess)
        }

    def units(self, parts: Iterable[MovingMemory]) -> Iterator[Unit]:
        """Yield the units that move the pages of these parts, each from where it lay."""
        return gather(self._unit(part, each) for part in parts for each in self._of(part))

    def unseen(self, part: MovingMemory) -> int:
        """Return the part's bytes on old nodes that the backend did not see; they stay."""
        return self._unseen.get(id(part), 0)

    def compare(self, part: MovingMemory) -> Comparison:
        """Look where the part's pages are now. Raise ProcessGoneError."""
        result = Comparison()
        for place in self._of(part):
            pair, pages = (place.old, self._moves[place.old]), place.pages.extents()
            for run in part.target.locate(place.item.area, place.start, place.end):
                size = pages.overlap(run.start, run.end) if run.node in pair else 0
                if run.node == place.old:
                    result.stayed += size
                elif size:
                    result.moved[pair] = result.moved.get(pair, 0) + size
        return result

    def _of(self, part: MovingMemory) -> Sequence[_Place]:
        return self._places.get(id(part), ())

    def _unit(self, part: MovingMemory, place: _Place) -> Unit:
        extents = place.pages.extents()
        return Unit(
            part,
            place.item.area,
            place.item.shared,
            place.start,
            place.end,
            {place.old: self._moves[place.old]},
            extents,
            extents.size,
        )

    def _find(self, part: MovingMemory) -> Iterator[_Place]:
        try:
            for item in part.selection.selected:
                if not item.counted.keys().isdisjoint(self._moves):
                    for start, end in spread(part.target, item.area):
                        yield from self._find_in(part, item, start, end)
        except ProcessGoneError:
            part.gone = True

    def _find_in(
        self, part: MovingMemory, item: Selected, start: int, end: int
    ) -> Iterator[_Place]:
        by_node: dict[int, Extents] = {}
        for run in part.target.locate(item.area, start, end):
            if run.node in self._moves:
                for piece in clip(run, item.pages):
                    by_node.setdefault(run.node, Extents()).add(piece.start, piece.end)
        for node, extents in by_node.items():
            yield _Place(item, start, end, node, PackedExtents(extents, item.area.page_size))
