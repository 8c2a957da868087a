"""Sweep units of work with several threads, and try again what failed for a passing reason."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

from schedhook.migration.options import MoveOptions
from schedhook.migration.processes import MovingMemory
from schedhook.migration.retry import is_transient, retry
from schedhook.migration.throttle import Throttle, bind_thread
from schedhook.migration.units import Unit
from schedhook.roles.backend import Backend, Failure
from schedhook.roles.request import Progress
from schedhook.values.errors import ProcessGoneError
from schedhook.values.reasons import Reason
from schedhook.values.sizes import add_sizes


@dataclass(frozen=True, slots=True)
class _Failed:
    unit: Unit
    failure: Failure

    def again(self) -> Unit:
        return replace(self.unit, start=self.failure.start, end=self.failure.end)


class Sweeper:
    """Moves units, and records in their parts what moved and what stayed."""

    def __init__(self, backend: Backend, options: MoveOptions) -> None:
        self.attempts = 0
        """Most sweeps that any page needed, the first one included."""
        self._backend = backend
        self._options = options
        self._progress: Progress | None = None
        self._moved = self._planned = 0
        self._throttle = Throttle(options.bandwidth)
        self._lock = threading.Lock()

    def report_progress(self, progress: Progress, planned: int) -> None:
        """Call `progress` with (bytes moved so far, `planned`) as pages move."""
        self._progress, self._planned = progress, planned

    def sweep(self, units: Iterable[Unit], parts: Iterable[MovingMemory]) -> None:
        """Sweep the units of `parts`; retry failures that may pass, and only these.

        What stayed in the end is counted in each part's `left`.
        """
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
            room = _read_room(self._backend)
            for item in failed:
                group = waiting if _may_pass(item, room, self._options.reserve) else settled
                group.append(item)
            pending = [item.again() for item in waiting]
            return bool(waiting)

        if attempt():
            retry(self._options.retry, attempt)
        self.attempts = max(self.attempts, attempts)
        _count_left(parts, settled + waiting)

    def record(self, part: MovingMemory, moved: Mapping[tuple[int, int], int]) -> None:
        """Count bytes that have moved, by (old node, new node), and report the progress."""
        with self._lock:
            add_sizes(part.moved, moved)
            self._moved += sum(moved.values())
            if self._progress:
                self._progress(self._moved, self._planned)

    def threads(self) -> ThreadPoolExecutor:
        """Return a pool of the threads that move pages, bound to their processors."""
        return ThreadPoolExecutor(
            self._options.threads,
            thread_name_prefix="schedhook-move",
            initializer=bind_thread,
            initargs=(self._options.cpus,),
        )

    def _run(self, units: Iterable[Unit]) -> list[_Failed]:
        """Sweep each unit with the next free thread; return what stayed."""
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
        part = unit.part
        if part.gone:
            return []
        failed: list[_Failed] = []
        boundary = partial(part.target.boundary, unit.area)
        pieces = self._throttle.pieces(unit.start, unit.end, boundary, unit.only)
        for start, end in pieces:
            try:
                done = part.target.sweep(
                    unit.area,
                    start,
                    end,
                    unit.destinations,
                    shared=unit.shared,
                    limits=self._options.limits,
                    only=unit.only,
                )
            except ProcessGoneError:
                part.gone = True
                return failed
            self.record(part, done.moved)
            self._throttle.spend(sum(done.moved.values()))
            failed += [_Failed(unit, failure) for failure in done.failures]
            if done.gone:
                part.gone = True
                return failed
        return failed


def _read_room(backend: Backend) -> Mapping[int, int]:
    """Return the bytes that the kernel can give on each node, read now."""
    return {number: node.room for number, node in backend.topology().nodes.items()}


def _may_pass(item: _Failed, room: Mapping[int, int], reserve: int) -> bool:
    """Return whether another attempt can succeed with `room` bytes on each node."""
    wanted = reserve + item.failure.size
    has_room = all(room.get(node, -1) >= wanted for node in item.unit.destinations.values())
    return not item.unit.part.gone and is_transient(item.failure.errno, has_room=has_room)


def _count_left(parts: Iterable[MovingMemory], failed: Iterable[_Failed]) -> None:
    """Set the `left` of each part to the bytes that stayed, by reason."""
    for part in parts:
        part.left = {}
    for item in failed:
        left = item.unit.part.left
        reason = Reason.of_errno(item.failure.errno)
        left[reason] = left.get(reason, 0) + item.failure.size
