"""Units of work: parts of processes' memory that one call into the backend sweeps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from schedhook.migration.processes import MovingMemory, MovingProcess
from schedhook.migration.runs import locate, spread
from schedhook.migration.selection import Selected
from schedhook.values.errors import ProcessGoneError
from schedhook.values.extents import Extents
from schedhook.values.model import Area, NodeMap


@dataclass(frozen=True, slots=True)
class Unit:
    """Pages of one process or object to sweep with one call into the backend."""

    part: MovingMemory
    area: Area
    shared: bool
    start: int
    end: int
    destinations: Mapping[int, int]
    """Old node → new node."""
    only: Extents | None = None
    """Move only pages that lie completely in one of these; None: all."""


def map_units(parts: Sequence[MovingMemory], node_map: NodeMap) -> Iterable[Unit]:
    """Yield the units that move all selected pages as the map says.

    If old and new nodes overlap, a page that has arrived must not be taken for one that has yet
    to leave. So each run of pages gets the one destination of the node where it was found first.
    """
    return _overlapping(parts, node_map) if node_map.overlaps else _plain(parts, node_map)


def planned_units(processes: Sequence[MovingProcess]) -> Iterable[Unit]:
    """Yield the units that move pages as the processes' page plans say."""
    for process in processes:
        for transfer in process.page_plan.transfers if process.page_plan else ():
            yield Unit(
                process,
                transfer.area,
                transfer.shared,
                transfer.start,
                transfer.end,
                {transfer.old: transfer.new},
                transfer.pages,
            )


def _plain(parts: Sequence[MovingMemory], node_map: NodeMap) -> Iterator[Unit]:
    moves = node_map.moves
    for part in parts:
        for item in part.selection.selected:
            if item.counted.keys().isdisjoint(moves):
                continue  # looking at its holes and its pages elsewhere would cost time
            for start, end in spread(item.area):
                if (only := _part(item.only, start, end)) is None or only:
                    yield Unit(part, item.area, item.shared, start, end, moves, only)


def _overlapping(parts: Sequence[MovingMemory], node_map: NodeMap) -> Iterator[Unit]:
    # Pages that several processes map are located before anything moves, the rest part by part,
    # so that memory use stays bounded.
    common = list[Unit]()
    own = list[tuple[MovingMemory, Selected]]()
    for part in parts:
        for item in part.selection.selected:
            if item.is_common and len(parts) > 1:
                common += _located(part, item, node_map.moves)
            else:
                own.append((part, item))
    yield from common
    for part, item in own:
        yield from _located(part, item, node_map.moves)


def _located(part: MovingMemory, item: Selected, moves: Mapping[int, int]) -> Iterator[Unit]:
    """Yield a unit for each run of pages that must move, with the destination of its node."""
    if item.counted.keys().isdisjoint(moves):
        return
    try:
        for run in locate(part.target, item.area, item.only):
            if run.node in moves:
                only = {run.node: moves[run.node]}
                yield Unit(part, item.area, item.shared, run.start, run.end, only)
    except ProcessGoneError:
        part.gone = True


def _part(only: Extents | None, start: int, end: int) -> Extents | None:
    return None if only is None else Extents(only.within(start, end))
