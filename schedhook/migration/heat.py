"""Which memory of the processes is used most: by a profile, or by DAMON; else the largest areas.

Heat is told of windows that no page crosses: so a huge page is as hot as all of its parts. They
have 2 MiB each, and more only where a page has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from heapq import nlargest
from typing import TYPE_CHECKING

from schedhook.control.damon import MOST_RANGES, NoDamonError, count_accesses
from schedhook.migration.units import Heat

if TYPE_CHECKING:
    from schedhook.migration.move import Move
    from schedhook.roles.profile import Accesses

_WINDOW = 2 << 20


def find_heat(work: Move) -> Heat:
    """Return the heat of the memory that moves, by the request's profile if it has one.

    Else DAMON is asked, which takes about a second. If it cannot be, or finds no access, the
    largest areas count as the hottest, and a note says so.
    """
    work.refresh()
    spans = list(_spans(work))
    if work.guidance is not None:
        return _by_profile(spans, work.guidance.accesses)
    try:
        return _by_damon(spans, work)
    except NoDamonError as why:
        note = f"which pages are used most is not known ({why}): the largest areas first"
        if note not in work.notes:  # once for all steps of a node map
            work.notes.append(note)
        largest = nlargest(MOST_RANGES, spans, key=lambda each: each.resident)
        return _sorted((each.pid, each.start, each.end, each.resident) for each in largest)


@dataclass(frozen=True, slots=True)
class _Span:
    """Contiguous addresses of a process, an area or a part of a joined one."""

    pid: int
    start: int
    end: int
    resident: int
    is_joined: bool
    largest: int
    """Bytes of the largest page that can be there."""
    boundary: Callable[[int], int]
    """Returns the first address from another one on at which no page is cut."""

    def windows(self, count: int = 1) -> Iterator[tuple[int, int]]:
        """Yield its parts, each of so many windows as far as it has them."""
        start = self.start
        while start < self.end:
            end = min(self.end, self._uncut((start // _WINDOW + count) * _WINDOW))
            yield start, end
            start = end

    def window(self, address: int) -> tuple[int, int]:
        """Return the window around an address."""
        size = _WINDOW
        start = address // size * size
        end = self._uncut(start + size)
        while self._uncut(start) > start and size < self.largest:
            size *= 2
            start = address // size * size
        return max(start, self.start), min(end, self.end)

    def _uncut(self, address: int) -> int:
        return address if self.largest <= _WINDOW else self.boundary(address)


def _spans(work: Move) -> Iterator[_Span]:
    """Yield where the memory is that moves."""
    for process in (each for each in work.processes if not each.gone):
        areas = {
            item.area.start: item.area
            for item in process.selection.selected
            if not work.node_map.moves.keys().isdisjoint(item.counted)
        }
        for area in areas.values():
            largest = process.target.page_sizes.largest(area.page_size)
            boundary = partial(process.target.boundary, area)
            parts = [(area.start, area.end)] if area.parts is None else list(area.parts)
            resident = area.resident // len(parts)
            is_joined = area.parts is not None
            for start, end in parts:
                yield _Span(process.pid, start, end, resident, is_joined, largest, boundary)


def _by_profile(spans: Iterable[_Span], accesses: Mapping[int, Accesses]) -> Heat:
    """Return the accesses to each window that the profile knows."""
    rows = []
    for span in (each for each in spans if each.pid in accesses):
        start = end = total = 0
        for address, _, count in accesses[span.pid].between(span.start, span.end):
            if address >= end:
                rows.append((span.pid, start, end, total))
                first, last = span.window(address)
                start, end, total = max(first, end), last, 0
            total += count
        rows.append((span.pid, start, end, total))
    return _sorted(rows)


def _by_damon(spans: Iterable[_Span], work: Move) -> Heat:
    """Return how often DAMON finds parts of the largest areas accessed, MOST_RANGES at most.

    Areas get parts by their resident memory. Small ones that were joined are left out.
    """
    if work.is_simulation:
        raise NoDamonError("nothing is accessed in a simulation")
    alone = (each for each in spans if not each.is_joined)
    largest = nlargest(MOST_RANGES // 4, alone, key=lambda each: each.resident)
    total = sum(each.resident for each in largest)
    ranges: dict[int, list[tuple[int, int]]] = {}
    for span in largest:
        share = max(1, (MOST_RANGES - 2 * len(largest)) * span.resident // total)
        count = -(-(span.end - span.start) // share // _WINDOW)
        ranges.setdefault(span.pid, []).extend(span.windows(count))
    found = count_accesses({pid: sorted(its) for pid, its in ranges.items()}, work.root)
    heat = _sorted((pid, *each) for pid, its in found.items() for each in its)
    if not heat:
        raise NoDamonError("DAMON found no access")
    return heat


def _sorted(rows: Iterable[tuple[int, int, int, int]]) -> Heat:
    """Return the rows (pid, start, end, heat) whose heat is not 0, by process, ascending."""
    heat: dict[int, list[tuple[int, int, int]]] = {}
    for pid, start, end, value in sorted(rows):
        if value > 0:
            heat.setdefault(pid, []).append((start, end, value))
    return heat
