"""Units of work: parts of processes' memory that one call into the backend sweeps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from schedhook.migration.processes import MovingProcess
from schedhook.migration.selection import Selected
from schedhook.values.errors import ProcessGoneError
from schedhook.values.extents import Extents
from schedhook.values.model import Area, NodeMap

UNIT_BYTES = 32 << 20
"""Resident memory per unit of work: small enough to spread over threads."""
_FOLIO = 2 << 20
"""Parts are aligned to this, so that no huge page lies in two of them."""


@dataclass(frozen=True, slots=True)
class Unit:
    """Pages of one process to sweep with one call into the backend."""

    process: MovingProcess
    area: Area
    shared: bool
    start: int
    end: int
    destinations: Mapping[int, int]
    """Old node → new node."""
    only: Extents | None = None
    """Move only pages that lie completely in one of these; None: all."""


def spread(area: Area) -> Iterable[tuple[int, int]]:
    """Yield parts [start, end) of an area, each with about UNIT_BYTES of resident memory."""
    parts = max(1, area.resident // UNIT_BYTES)
    step = area.size // parts
    align = max(area.page_size, _FOLIO)
    step = max(align, step // align * align)
    start = area.start
    while start < area.end:
        end = min(area.end, start // align * align + step)
        if area.end - end < align:
            end = area.end
        yield start, end
        start = end


def map_units(processes: Sequence[MovingProcess], node_map: NodeMap) -> Iterable[Unit]:
    """Yield the units that move all selected pages as the map says.

    If old and new nodes overlap, a page that has arrived must not be taken for one that has yet
    to leave. So each run of pages gets the one destination of the node where it was found first.
    """
    return _overlapping(processes, node_map) if node_map.overlaps else _plain(processes, node_map)


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


def _plain(processes: Sequence[MovingProcess], node_map: NodeMap) -> Iterator[Unit]:
    moves = node_map.moves
    for process in processes:
        for item in process.selection.selected:
            if item.area.residency.keys().isdisjoint(moves):
                continue  # looking at its holes and its pages elsewhere would cost time
            for start, end in spread(item.area):
                yield Unit(process, item.area, item.shared, start, end, moves)


def _overlapping(processes: Sequence[MovingProcess], node_map: NodeMap) -> Iterator[Unit]:
    # Pages that several processes map are located before anything moves, the rest part by part,
    # so that memory use stays bounded.
    common = list[Unit]()
    own = list[tuple[MovingProcess, Selected]]()
    for process in processes:
        for item in process.selection.selected:
            if len(processes) > 1 and (item.area.is_shared or item.area.most_mappers > 1):
                for start, end in spread(item.area):
                    common += _located(process, item, start, end, node_map.moves)
            else:
                own.append((process, item))
    yield from common
    for process, item in own:
        for start, end in spread(item.area):
            yield from _located(process, item, start, end, node_map.moves)


def _located(
    process: MovingProcess, item: Selected, start: int, end: int, moves: Mapping[int, int]
) -> Iterator[Unit]:
    """Yield a unit for each run of pages that must move, with the destination of its node."""
    try:
        runs = process.target.locate(item.area, start, end)
    except ProcessGoneError:
        process.gone = True
        return
    for run in runs:
        if run.node in moves:
            only = {run.node: moves[run.node]}
            yield Unit(process, item.area, item.shared, run.start, run.end, only)
