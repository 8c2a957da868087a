"""Pages of simulated processes: where they lie, and what an attempt to move them ends with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from schedhook.roles.backend import Failure, PageRun
from schedhook.values.extents import Extents
from schedhook.values.model import Area, MemoryKind
from schedhook.values.sets import NodeSet

PAGE = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedArea:
    """A mapping to be put into a process."""

    start: int
    nodes: Sequence[int | None]
    """Where each page (or folio, see there) lies, in order; None where there is none."""
    page_size: int = PAGE
    """Of a pool's huge page with `MemoryKind.HUGE`."""
    folio_size: int = 0
    """Bytes that move as one where that is more than a page: a transparent huge page."""
    kind: MemoryKind = MemoryKind.ANON
    path: str = ""
    policy: str = "default"
    name: str = ""
    """Areas of one name, in whichever process, map one and the same memory (MAP_SHARED)."""


class Memory:
    """Pages by offset, as runs on one node; `unit` bytes move as one."""

    def __init__(self, unit: int, runs: Iterable[PageRun], pool: int = 0) -> None:
        self.unit = unit
        self.pool = pool
        """The page size of the huge-page pool that it is taken from, 0: ordinary memory."""
        self.runs = list(runs)
        self.script: dict[int, list[int]] = {}
        self.permanent: dict[int, int] = {}
        self.hidden: set[int] = set()
        """Offsets of units that move_pages(2) does not find."""

    def within(self, start: int, end: int) -> list[PageRun]:
        """The runs in [start, end), which is widened to whole units."""
        start, end = start // self.unit * self.unit, -(-end // self.unit) * self.unit
        return [
            replace(run, start=max(run.start, start), end=min(run.end, end))
            for run in self.runs
            if run.start < end and start < run.end
        ]

    def found(self, start: int, end: int) -> list[PageRun]:
        """The same without what is hidden."""
        return [
            replace(run, start=first, end=last)
            for run in self.within(start, end)
            for first, last in self._shown(run)
        ]

    def place(self, start: int, end: int, node: int) -> None:
        """Put what lies in [start, end), a part of one run, on `node`."""
        runs: list[PageRun] = []
        for run in self.runs:
            if not (run.start < end and start < run.end):
                runs.append(run)
                continue
            if run.start < start:
                runs.append(replace(run, end=start))
            runs.append(PageRun(start=start, end=end, node=node))
            if end < run.end:
                runs.append(replace(run, start=end))
        self.runs = list(joined(runs))

    def attempts(self, start: int, end: int) -> Iterator[tuple[int, int, int]]:
        """[start, end) in pieces with the errno that each one's attempt ends with, 0: it moves."""
        position = start
        for offset in sorted({*self.script, *self.permanent}):
            if start <= offset < end and (number := self._outcome(offset)):
                if position < offset:
                    yield position, offset, 0
                yield offset, offset + self.unit, number
                position = offset + self.unit
        if position < end:
            yield position, end, 0

    def _shown(self, run: PageRun) -> Iterator[tuple[int, int]]:
        position = run.start
        for offset in sorted(self.hidden):
            if position <= offset < run.end:
                if position < offset:
                    yield position, offset
                position = offset + self.unit
        if position < run.end:
            yield position, run.end

    def _outcome(self, offset: int) -> int:
        if offset in self.permanent:
            return self.permanent[offset]
        coming = self.script[offset]
        return coming.pop(0) if coming else 0


@dataclass(slots=True)
class Mapped:
    area: Area
    """As it is told, but for residency and mappers."""
    memory: Memory

    def residency(self) -> dict[int, int]:
        total: dict[int, int] = {}
        for run in self.memory.within(0, self.area.size):
            total[run.node] = total.get(run.node, 0) + run.end - run.start
        return total


@dataclass(slots=True)
class Process:
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
    """What one call does."""

    moved: dict[tuple[int, int], int] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)

    def fail(self, start: int, end: int, number: int, unit: int) -> None:
        last = self.failures[-1] if self.failures else None
        if last and last.errno == number and last.end == start:
            self.failures[-1] = replace(last, end=end, size=last.size + end - start)
            return
        self.failures.append(
            Failure(start=start, end=end, errno=number, size=end - start, page_size=unit)
        )


def parts(run: PageRun, only: Extents | None, mapping: Mapped) -> Iterator[PageRun]:
    """The parts of a run, by offset, whose pages lie whole within `only`, by address."""
    if only is None:
        yield run
        return
    base, unit = mapping.area.start, mapping.memory.unit
    for first, last in only:
        start = max(run.start, -(-(first - base) // unit) * unit)
        end = min(run.end, (last - base) // unit * unit)
        if start < end:
            yield replace(run, start=start, end=end)


def joined(runs: Iterable[PageRun]) -> Iterator[PageRun]:
    """Neighbours on one node as one run."""
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
