"""Sweeping: pieces of processes' memory moved by several threads, and what failed tried again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from schedhook.migration.page_plan import PagePlan
from schedhook.migration.retry import RetryPolicy, is_transient, retry
from schedhook.migration.selection import ProcessSelection
from schedhook.migration.throttle import Throttle, bind_thread
from schedhook.roles.backend import Backend, Failure, Limits, Target
from schedhook.values.errors import ProcessGoneError
from schedhook.values.extents import Extents
from schedhook.values.model import Area, Reason
from schedhook.values.sets import CpuSet

UNIT_BYTES = 32 << 20
"""Resident memory that one unit of work is about: small enough to spread over threads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveOptions:
    """How to move."""

    threads: int = 1
    cpus: CpuSet = field(default_factory=CpuSet)
    """Processors that the threads are bound to; empty: the caller's."""
    bandwidth: float = 0.0
    """Bytes a second, 0: no bound."""
    limits: Limits = field(default_factory=Limits)
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    reserve: int = 0
    """Bytes that stay free on each destination; ENOMEM is worth a retry above that only."""
    sweep_leftovers: bool = True
    """Whether what a whole-process call left behind is moved page by page."""


@dataclass(slots=True)
class MovingProcess:
    """One process on the move. A strategy may read it; `Move` writes it."""

    target: Target
    selection: ProcessSelection
    """What was found when last looked."""
    moved: dict[tuple[int, int], int] = field(default_factory=dict)
    left: dict[str, int] = field(default_factory=dict)
    """Bytes that stayed when last tried, by reason."""
    gone: bool = False
    before: ProcessSelection | None = None
    """What was found when the move began; None for one that came later."""
    memory_owner_pid: int | None = None
    """The process in whose memory it runs, and where that is counted and moved; else None."""
    page_plan: PagePlan | None = None
    """What a strategy that decides page by page has decided; None with any other."""

    @property
    def pid(self) -> int:
        return self.target.pid


@dataclass(frozen=True, slots=True)
class Unit:
    """Some pages to be swept with one call into the backend."""

    process: MovingProcess
    area: Area
    shared: bool
    start: int
    end: int
    destinations: Mapping[int, int]
    only: Extents | None = None


@dataclass(frozen=True, slots=True)
class _Failed:
    unit: Unit
    failure: Failure

    def again(self) -> Unit:
        return replace(self.unit, start=self.failure.start, end=self.failure.end)


class Sweeper:
    """Moves units, and records in their processes what moved and what stayed."""

    def __init__(self, backend: Backend, options: MoveOptions) -> None:
        self.attempts = 0
        """Sweeps over the pages that failed most often, the first one included."""
        self._backend = backend
        self._options = options
        self._progress: Callable[[int, int], None] | None = None
        self._moved = self._planned = 0
        self._throttle = Throttle(options.bandwidth)
        self._lock = threading.Lock()

    def report_progress(self, progress: Callable[[int, int], None], planned: int) -> None:
        """Call `progress` with (bytes moved so far, `planned`) as pages move."""
        self._progress, self._planned = progress, planned

    def sweep(self, units: Iterable[Unit], processes: Iterable[MovingProcess]) -> None:
        """Sweep the units, which are of `processes`; those that may pass are tried again."""
        pending = units
        settled: list[_Failed] = []
        waiting: list[_Failed] = []
        attempts = 0

        def attempt() -> bool:
            nonlocal pending, waiting, attempts
            attempts += 1
            failed, waiting = self._run(pending), []
            if not failed:
                return False
            may_pass = self._transience()
            waiting = [item for item in failed if may_pass(item)]
            settled.extend(item for item in failed if not may_pass(item))
            pending = [item.again() for item in waiting]
            return bool(waiting)

        if attempt():
            retry(self._options.retry, attempt)
        self.attempts = max(self.attempts, attempts)
        for process in processes:
            process.left = {}
        for item in settled + waiting:
            left = item.unit.process.left
            reason = Reason.of_errno(item.failure.errno)
            left[reason] = left.get(reason, 0) + item.failure.size

    def record(self, process: MovingProcess, moved: Mapping[tuple[int, int], int]) -> None:
        """Count bytes that have moved, by (old node, new node), and tell of the progress."""
        with self._lock:
            for pair, size in moved.items():
                process.moved[pair] = process.moved.get(pair, 0) + size
            self._moved += sum(moved.values())
            if self._progress:
                self._progress(self._moved, self._planned)

    def threads(self) -> ThreadPoolExecutor:
        """Threads to move with, on the processors that are to bear it."""
        return ThreadPoolExecutor(
            self._options.threads,
            thread_name_prefix="schedhook-move",
            initializer=bind_thread,
            initargs=(self._options.cpus,),
        )

    def _run(self, units: Iterable[Unit]) -> list[_Failed]:
        """Sweep the units, each by the next thread that is free; returns what stayed."""
        source, turn = iter(units), threading.Lock()

        def work() -> list[_Failed]:
            failed: list[_Failed] = []
            while True:
                with turn:
                    unit = next(source, None)
                if unit is None:
                    return failed
                failed += self._sweep_unit(unit)

        with self.threads() as pool:
            workers = [pool.submit(work) for _ in range(self._options.threads)]
        return [item for worker in workers for item in worker.result()]

    def _sweep_unit(self, unit: Unit) -> list[_Failed]:
        process = unit.process
        if process.gone:
            return []
        failed: list[_Failed] = []
        for start, end in self._throttle.pieces(unit.start, unit.end, unit.area.page_size):
            try:
                done = process.target.sweep(
                    unit.area,
                    start,
                    end,
                    unit.destinations,
                    shared=unit.shared,
                    limits=self._options.limits,
                    only=unit.only,
                )
            except ProcessGoneError:
                process.gone = True
                return failed
            self.record(process, done.moved)
            self._throttle.spend(sum(done.moved.values()))
            failed += [_Failed(unit, failure) for failure in done.failures]
            if done.gone:
                process.gone = True
                return failed
        return failed

    def _transience(self) -> Callable[[_Failed], bool]:
        """A test for failures that may pass, by what memory is free now."""
        nodes = self._backend.topology().nodes

        def may_pass(item: _Failed) -> bool:
            wanted = self._options.reserve + item.failure.size
            has_room = all(
                node in nodes and nodes[node].memory_free >= wanted
                for node in item.unit.destinations.values()
            )
            return not item.unit.process.gone and is_transient(
                item.failure.errno, has_room=has_room
            )

        return may_pass


def spread(area: Area) -> Iterable[tuple[int, int]]:
    """Cut an area into pieces of about UNIT_BYTES of resident memory each."""
    pieces = max(1, area.resident // UNIT_BYTES)
    step = area.size // pieces
    # Whole huge pages, of whatever size, stay in one piece.
    align = max(area.page_size, 2 << 20)
    step = max(align, step // align * align)
    start = area.start
    while start < area.end:
        end = min(area.end, start // align * align + step)
        if area.end - end < align:
            end = area.end
        yield start, end
        start = end
