"""The pages of simulated processes: where they are, and the outcome of attempts to move them."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from schedhook.roles.backend import Failure, PageRun, PageSet
from schedhook.values.extents import Extents
from schedhook.values.model import Area, MemoryKind
from schedhook.values.sets import NodeSet

PAGE = 4096
"""Bytes of a base page, unless the simulated kernel has another one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedArea:
    """A mapping for a simulated process."""

    start: int
    nodes: Sequence[int | None]
    """The node of each page (or folio, see `folio_size`) in order; None for a page not present."""
    page_size: int = 0
    """Bytes; with `MemoryKind.HUGE` the size of a huge page of a pool. 0: a base page."""
    folio_size: int = 0
    """Bytes that move as one if that is more than a page. The first folio begins with the area."""
    kind: MemoryKind = MemoryKind.ANON
    path: str = ""
    policy: str = "default"
    name: str = ""
    """Areas with the same name, in any process, map the same memory (MAP_SHARED)."""


class SeenMemory(PageSet):
    """Pages that a survey has seen: offsets, by the memory that they are in."""

    def __init__(self) -> None:
        self._seen: dict[int, tuple[Memory, Extents]] = {}

    def fresh(self, memory: Memory, runs: Iterable[PageRun]) -> Iterator[PageRun]:
        """Yield the parts of ascending runs, by offset, that were not seen; these are now."""
        _, seen = self._seen.setdefault(id(memory), (memory, Extents()))
        fresh = [
            replace(run, start=first, end=last)
            for run in runs
            for first, last in seen.outside(run.start, run.end)
        ]
        both = sorted([*seen, *((run.start, run.end) for run in fresh)])
        self._seen[id(memory)] = memory, Extents(both)
        yield from fresh


class Memory:
    """Pages by offset, as runs on one node; `unit` bytes move as one."""

    def __init__(self, unit: int, runs: Iterable[PageRun], pool: int = 0) -> None:
        self.unit = unit
        self.pool = pool
        """The page size of the huge-page pool that it is taken from; 0 for ordinary memory."""
        self.runs = list(runs)
        self.script: dict[int, list[int]] = {}
        """The errnos with which coming attempts to move a unit end, by offset."""
        self.permanent: dict[int, int] = {}
        """The errno with which every attempt to move a unit ends, by offset."""
        self.hidden: dict[int, int] = {}
        """How many more times move_pages(2) does not find a unit when it tries to move it, by
        offset."""

    def within(self, start: int, end: int) -> list[PageRun]:
        """Return the runs in [start, end), which is widened to whole units."""
        start, end = start // self.unit * self.unit, -(-end // self.unit) * self.unit
        return [
            replace(run, start=max(run.start, start), end=min(run.end, end))
            for run in self.runs[self._touching(start, end)]
            if run.start < end and start < run.end
        ]

    def found(self, start: int, end: int) -> list[PageRun]:
        """Return the same runs, cut where hidden units begin and end."""
        return [piece for run in self.within(start, end) for piece in self._cut(run)]

    def seek(self, start: int, end: int) -> None:
        """Count an attempt to move the hidden units in [start, end); the process then uses them."""
        for offset in [offset for offset in self.hidden if start <= offset < end]:
            self.hidden[offset] -= 1
            if not self.hidden[offset]:
                del self.hidden[offset]

    def place(self, start: int, end: int, node: int) -> None:
        """Put the pages in [start, end), a part of one run, on `node`."""
        near = self._touching(start, end)
        runs: list[PageRun] = []
        for run in self.runs[near]:
            if not (run.start < end and start < run.end):
                runs.append(run)
                continue
            if run.start < start:
                runs.append(replace(run, end=start))
            runs.append(PageRun(start=start, end=end, node=node))
            if end < run.end:
                runs.append(replace(run, start=end))
        self.runs[near] = joined(runs)

    def attempts(self, start: int, end: int) -> Iterator[tuple[int, int, int]]:
        """Yield pieces of [start, end) as (start, end, errno of the attempt); 0: it moves."""
        position = start
        for offset in sorted({*self.script, *self.permanent}):
            if start <= offset < end and (number := self._outcome(offset)):
                if position < offset:
                    yield position, offset, 0
                yield offset, offset + self.unit, number
                position = offset + self.unit
        if position < end:
            yield position, end, 0

    def _touching(self, start: int, end: int) -> slice:
        """Return where the runs are that overlap [start, end) or adjoin it."""
        first = bisect_left(self.runs, start, key=lambda run: run.end)
        return slice(first, bisect_right(self.runs, end, key=lambda run: run.start))

    def _cut(self, run: PageRun) -> Iterator[PageRun]:
        position = run.start
        for offset in sorted(self.hidden):
            if position <= offset < run.end:
                if position < offset:
                    yield replace(run, start=position, end=offset)
                yield replace(run, start=offset, end=offset + self.unit, hidden=True)
                position = offset + self.unit
        if position < run.end:
            yield replace(run, start=position)

    def _outcome(self, offset: int) -> int:
        if offset in self.permanent:
            return self.permanent[offset]
        coming = self.script[offset]
        return coming.pop(0) if coming else 0


@dataclass(slots=True)
class Mapped:
    """A mapping of a process."""

    area: Area
    """As added; its residency and its number of mappers are not kept up to date."""
    memory: Memory

    def residency(self) -> dict[int, int]:
        """Return bytes per node."""
        total: dict[int, int] = {}
        for run in self.memory.within(0, self.area.size):
            total[run.node] = total.get(run.node, 0) + run.end - run.start
        return total

    def offset_of(self, address: int) -> int:
        """Return the offset in the memory of the unit that contains `address`."""
        return (address - self.area.start) // self.memory.unit * self.memory.unit


@dataclass(slots=True)
class Process:
    """A simulated process; `SimulatedBackend.add_process` explains the fields."""

    pid: int
    command: str
    mappings: list[Mapped]
    allowed_nodes: NodeSet
    permitted: bool = True
    alive: bool = True
    swapped: int = 0
    exit_after: int | None = None
    fork_after: int | None = None
    child: int = 0
    memory_owner_pid: int | None = None


@dataclass(slots=True)
class Tally:
    """The results of one call."""

    moved: dict[tuple[int, int], int] = field(default_factory=dict)
    """Bytes by (old node, new node)."""
    failures: list[Failure] = field(default_factory=list)

    def succeed(self, old: int, new: int, size: int) -> None:
        """Count `size` bytes that moved."""
        self.moved[old, new] = self.moved.get((old, new), 0) + size

    def fail(self, start: int, end: int, number: int, unit: int) -> None:
        """Count the bytes of [start, end), which stayed because of the errno `number`."""
        last = self.failures[-1] if self.failures else None
        if last and last.errno == number and last.end == start:
            self.failures[-1] = replace(last, end=end, size=last.size + end - start)
            return
        self.failures.append(
            Failure(start=start, end=end, errno=number, size=end - start, page_size=unit)
        )


def parts(run: PageRun, only: Extents | None, mapping: Mapped) -> Iterator[PageRun]:
    """Yield the parts of a run, by offset, of which a page lies in `only`, by address.

    They are whole units, as the kernel moves folios.
    """
    if only is None:
        yield run
        return
    base, unit = mapping.area.start, mapping.memory.unit
    position = run.start
    for first, last in only.within(base + run.start, base + run.end):
        start = max(position, (first - base) // unit * unit)
        end = min(run.end, -(-(last - base) // unit) * unit)
        if start < end:
            yield replace(run, start=start, end=end)
            position = end


def joined(runs: Iterable[PageRun]) -> Iterator[PageRun]:
    """Yield the runs; adjacent ones on one node become one run."""
    last: PageRun | None = None
    for run in runs:
        if last and last.end == run.start and last.node == run.node:
            last = replace(last, end=run.end)
            continue
        if last:
            yield last
        last = run
    if last:
        yield last
