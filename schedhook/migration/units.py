"""Units of work: parts of processes' memory that one call into the backend sweeps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from schedhook.migration.page_plan import Transfer
from schedhook.migration.processes import MovingMemory, MovingProcess
from schedhook.migration.runs import UNIT_BYTES, spread
from schedhook.roles.backend import PageRun
from schedhook.values.errors import BackendError, NoPermissionError, ProcessGoneError
from schedhook.values.extents import Extents
from schedhook.values.model import Area, MemoryKind, NodeMap

Heat = Mapping[int, Sequence[tuple[int, int, int]]]
"""By process: (start, end, heat) of ranges that do not overlap, ascending. Heat is a number of
accesses, or of bytes, greater than 0."""


@dataclass(frozen=True, slots=True)
class Unit:
    """Pages of one process or object to sweep with one call into the backend."""

    part: MovingMemory
    area: Area
    """The pages' area; the first of several, all with pages of one size, if `only` says so."""
    shared: bool
    start: int
    end: int
    destinations: Mapping[int, int]
    """Old node → new node."""
    only: Extents | None = None
    """Move only pages that lie completely in one of these; None: all."""
    size: int = 0
    """About so many bytes are resident."""
    present: Extents | None = None
    """Where they are, if that was looked up."""

    @property
    def counted(self) -> Extents | None:
        """Where pages can be that move, as far as that is known; None: anywhere."""
        return self.only if self.present is None else self.present

    def located(self, start: int, end: int) -> Iterator[PageRun]:
        """Yield the runs of its present pages in [start, end). Raise what `locate` raises."""
        for bounds in [(start, end)] if self.only is None else self.only.within(start, end):
            yield from self.part.target.locate(self.area, *bounds)

    def look_up(self) -> Unit:
        """Return the unit with its present pages, if most of it is holes that can be told.

        Cut by addresses, it would take a call for each piece of every hole.
        """
        size = self.end - self.start if self.only is None else self.only.size
        if self.present is not None or 2 * self.size > size or not self.part.target.skips_holes:
            return self
        try:
            runs = self.located(self.start, self.end)
            return replace(self, present=Extents((run.start, run.end) for run in runs))
        except ProcessGoneError:
            self.part.gone = True
        except (BackendError, NoPermissionError):
            pass  # the sweep says of which pages, and why
        return self


def map_units(parts: Sequence[MovingMemory], node_map: NodeMap) -> Iterable[Unit]:
    """Yield the units that move all selected pages as the map says.

    Its old and new nodes must not overlap; see schedhook.migration.snapshot.
    """
    return gather(_plain(parts, node_map.moves))


def planned_units(processes: Sequence[MovingProcess]) -> Iterable[Unit]:
    """Yield the units that move pages as the processes' page plans say."""
    return gather(_planned(processes))


def heated_units(
    processes: Sequence[MovingProcess], node_map: NodeMap, heat: Heat
) -> Iterator[list[Unit]]:
    """Yield the units that move the memory in the ranges of `heat`, the hottest twentieth first."""
    units = {each.pid: _known(each, node_map.moves, heat.get(each.pid, ())) for each in processes}
    for ranges in _twentieths(heat):
        found = list[Unit]()
        for pid, its in units.items():
            alike = Extents(sorted(ranges.get(pid, ())))
            found += gather(part for unit in its for part in _within(unit, alike))
        yield found


def _known(
    process: MovingProcess, moves: Mapping[int, int], ranges: Sequence[tuple[int, int, int]]
) -> list[Unit]:
    """Return the process's units that have memory in one of the ranges."""
    known = Extents((start, end) for start, end, _ in ranges)
    return [unit for unit in _plain([process], moves) if any(known.within(unit.start, unit.end))]


def _twentieths(heat: Heat) -> Iterator[dict[int, list[tuple[int, int]]]]:
    """Yield the ranges by process, the hottest twentieth of the bytes first, and so on."""
    rows = [(value, pid, start, end) for pid, its in heat.items() for start, end, value in its]
    share = sum(end - start for *_, start, end in rows) // 20
    part, size = dict[int, list[tuple[int, int]]](), 0
    for _, pid, start, end in sorted(rows, key=lambda row: -row[0]):
        if size >= share and part:
            yield part
            part, size = {}, 0
        part.setdefault(pid, []).append((start, end))
        size += end - start
    yield part


@dataclass(slots=True)
class _Batch:
    """Small units of one process, in ascending order, that become one."""

    units: list[Unit] = field(default_factory=list)
    size: int = 0

    def takes(self, unit: Unit) -> bool:
        return self.units[-1].end <= unit.start and self.size + unit.size <= UNIT_BYTES

    def add(self, unit: Unit) -> None:
        self.units.append(unit)
        self.size += unit.size

    def unit(self) -> Unit:
        if len(self.units) == 1:
            return self.units[0]
        first, end = self.units[0], self.units[-1].end
        only = Extents()
        for unit in self.units:
            if unit.only is None:
                only.add(unit.start, unit.end)
            else:
                only.extend(unit.only)
        is_whole = only.size == end - first.start and all(unit.only is None for unit in self.units)
        return replace(first, end=end, only=None if is_whole else only, size=self.size)


def gather(units: Iterable[Unit]) -> Iterator[Unit]:
    """Join small units whose pages go the same way, so that a call moves pages of many areas.

    Each move_pages(2) call first drains the page lists of every processor.
    """
    batches: dict[tuple[object, ...], _Batch] = {}
    part: MovingMemory | None = None
    for unit in units:
        if unit.part is not part:
            yield from (batch.unit() for batch in batches.values())
            batches.clear()
            part = unit.part
        pages = unit.area.page_size, unit.area.kind is MemoryKind.HUGE
        key = (*pages, unit.shared, *unit.destinations.items())
        batch = batches.get(key)
        if batch is not None and not batch.takes(unit):
            yield batch.unit()
            batch = None
        if batch is None:
            batch = batches[key] = _Batch()
        batch.add(unit)
    yield from (batch.unit() for batch in batches.values())


def transfer_unit(part: MovingMemory, transfer: Transfer) -> Unit:
    """Return the unit that moves the pages of a transfer."""
    return Unit(
        part,
        transfer.area,
        transfer.shared,
        transfer.start,
        transfer.end,
        {transfer.old: transfer.new},
        transfer.pages,
        transfer.pages.size,
    )


def _planned(processes: Sequence[MovingProcess]) -> Iterator[Unit]:
    for process in processes:
        for transfer in process.page_plan.transfers if process.page_plan else ():
            yield transfer_unit(process, transfer)


def _plain(parts: Sequence[MovingMemory], moves: Mapping[int, int]) -> Iterator[Unit]:
    for part in parts:
        for item in part.selection.selected:
            if item.counted.keys().isdisjoint(moves):
                continue  # looking at its holes and its pages elsewhere would cost time
            for start, end in spread(part.target, item.area):
                if (only := _part(item.pages, start, end)) is None or only:
                    size = item.area.resident * (end - start) // item.area.size
                    yield Unit(part, item.area, item.shared, start, end, moves, only, size)


def _within(unit: Unit, ranges: Extents) -> Iterator[Unit]:
    """Yield the unit of those of its pages that lie in the ranges; nothing if none does."""
    only = Extents(
        bounds
        for first, last in ranges.within(unit.start, unit.end)
        for bounds in ([(first, last)] if unit.only is None else unit.only.within(first, last))
    )
    if only:
        *_, (_, end) = only
        start = next(iter(only))[0]
        size = min(unit.size, only.size)
        yield replace(unit, start=start, end=end, only=only, size=size)


def _part(only: Extents | None, start: int, end: int) -> Extents | None:
    return None if only is None else only.cut(start, end)
