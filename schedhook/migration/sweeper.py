"""Sweep units of work with several threads, and try again what failed for a passing reason."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from schedhook.migration.headroom import Headroom
from schedhook.migration.options import MoveOptions
from schedhook.migration.processes import MovingMemory
from schedhook.migration.retry import is_transient, retry
from schedhook.migration.runs import last_cut
from schedhook.migration.threads import for_each
from schedhook.migration.throttle import Throttle
from schedhook.migration.units import Unit
from schedhook.roles.backend import Failure, Sweep
from schedhook.roles.request import Progress
from schedhook.values.errors import BackendError, NoPermissionError, ProcessGoneError
from schedhook.values.model import MemoryKind
from schedhook.values.reasons import Reason
from schedhook.values.sizes import add_sizes

_FIRST_TRIES = 3


@dataclass(frozen=True, slots=True)
class _Failed:
    unit: Unit
    failure: Failure
    held_back: bool = False
    """Nothing was tried, because there was no room."""

    @property
    def reason(self) -> str:
        return Reason.RESERVE if self.held_back else Reason.of_errno(self.failure.errno)

    def again(self) -> Unit:
        return replace(self.unit, start=self.failure.start, end=self.failure.end)


class Sweeper:
    """Moves units, and records in their parts what moved and what stayed."""

    def __init__(self, options: MoveOptions, headroom: Headroom) -> None:
        self.attempts = 0
        """Most sweeps that any page needed, the first one included."""
        self._options = options
        self._headroom = headroom
        self._progress: Progress | None = None
        self._moved = self._planned = 0
        self._throttle = Throttle(options.bandwidth)
        self._lock = threading.Lock()

    def report_progress(self, progress: Progress, planned: int) -> None:
        """Call `progress` with (bytes moved so far, `planned`) as pages move."""
        self._progress, self._planned = progress, planned

    def sweep(
        self,
        units: Iterable[Unit],
        parts: Iterable[MovingMemory],
        *,
        retry_hidden: bool = False,
    ) -> None:
        """Sweep the units of `parts`; retry failures that may pass, and only these.

        `retry_hidden`: also retry hidden pages, which the process's next access may show. What
        stayed in the end is counted in each part's `left`.
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
            self._headroom.expire()
            for item in failed:
                again = self._may_pass(item) or (
                    retry_hidden and item.failure.errno == errno.ENOENT
                )
                (waiting if again else settled).append(item)
            pending = [item.again() for item in waiting]
            return bool(waiting)

        if attempt():
            retry(self._options.retry, attempt)
        self.attempts = max(self.attempts, attempts)
        _count_left(parts, settled + waiting)

    def sweep_first(self, units: Iterable[Unit]) -> None:
        """Sweep the units, and leave what fails three times to a later `sweep` of the memory.

        Pages that are used all the time are the most likely to be busy.
        """
        for _ in range(_FIRST_TRIES):
            failed = self._run(units)
            self._headroom.expire()
            units = [item.again() for item in failed if self._may_pass(item)]
            if not units:
                break
        self.attempts = max(self.attempts, 1)

    def record(self, part: MovingMemory, moved: Mapping[tuple[int, int], int]) -> None:
        """Count bytes that have moved, by (old node, new node), and report the progress."""
        with self._lock:
            add_sizes(part.moved, moved)
            self._moved += sum(moved.values())
            if self._progress:
                self._progress(self._moved, self._planned)

    def _run(self, units: Iterable[Unit]) -> list[_Failed]:
        """Sweep each unit with the next free thread; return what stayed."""
        found = for_each(self._sweep_unit, units, self._options)
        return [item for failed in found for item in failed]

    def _sweep_unit(self, unit: Unit) -> list[_Failed]:
        failed: list[_Failed] = []
        if self._options.bandwidth:
            unit = unit.look_up()
        target, area = unit.part.target, unit.area
        largest = target.page_sizes.largest(area.page_size)
        boundary = partial(target.boundary, area)
        counted = unit.counted
        for bounds in self._throttle.pieces(unit.start, unit.end, boundary, largest, counted):
            failed += self._sweep_range(unit, *bounds)
        return failed

    def _sweep_range(self, unit: Unit, start: int, end: int) -> list[_Failed]:
        """Sweep [start, end) in as many parts as the room on the new nodes allows at a time."""
        failed: list[_Failed] = []
        moves = frozenset(unit.destinations.items())
        at = start
        while at < end and not unit.part.gone:
            most = _most_bytes(unit, at, end)
            granted = self._headroom.take(moves, most, least=min(most, unit.area.page_size))
            if most and not granted:
                return failed + self._hold_back(unit, at, end)
            stop = end
            if granted < most:
                unit = unit.look_up()
                stop = _cut(unit, at, end, granted)
            moved = 0
            try:
                done = self._sweep_part(unit, at, stop)
                moved = sum(done.moved.values())
            finally:
                self._headroom.settle(moves, granted, min(granted, moved))
            self._throttle.spend(moved)
            failed += [_Failed(unit, failure) for failure in done.failures]
            at = stop
        return failed

    def _sweep_part(self, unit: Unit, start: int, end: int) -> Sweep:
        """Sweep [start, end) with one call, and record what has moved."""
        try:
            done = unit.part.target.sweep(
                unit.area,
                start,
                end,
                unit.destinations,
                shared=unit.shared,
                limits=self._options.limits,
                only=unit.only,
            )
        except ProcessGoneError:
            done = Sweep(gone=True)
        unit.part.gone = unit.part.gone or done.gone
        self.record(unit.part, done.moved)
        return done

    def _hold_back(self, unit: Unit, start: int, end: int) -> list[_Failed]:
        """Return as a failure the pages of [start, end) for which there is no room."""
        try:
            runs = unit.located(start, end)
            size = sum(run.end - run.start for run in runs if run.node in unit.destinations)
        except ProcessGoneError:
            unit.part.gone = True
            return []
        except (BackendError, NoPermissionError):  # of an object
            size = _most_bytes(unit, start, end)
        failure = Failure(
            start=start, end=end, errno=errno.ENOMEM, size=size, page_size=unit.area.page_size
        )
        return [_Failed(unit, failure, held_back=True)] if size else []

    def _may_pass(self, item: _Failed) -> bool:
        """Return whether another attempt can succeed."""
        number = item.failure.errno
        moves = frozenset(item.unit.destinations.items())
        has_room = number == errno.ENOMEM and self._headroom.fits(moves, item.failure.size)
        return not item.unit.part.gone and is_transient(number, has_room=has_room)


def _cut(unit: Unit, start: int, end: int, size: int) -> int:
    """Return where at most the first `size` bytes of [start, end) end, if possible between folios.

    What is not in `unit.counted` does not count.
    """
    page_size, counted = unit.area.page_size, unit.counted
    for first, last in ((start, end),) if counted is None else counted.within(start, end):
        if last - first > size:
            at = first + size // page_size * page_size
            stop = last_cut(unit.part.target, unit.area, start, at)
            return stop if stop > start else at
        size -= last - first
    return end


def _most_bytes(unit: Unit, start: int, end: int) -> int:
    """Return the most bytes that can arrive from [start, end); pages of a pool take no room."""
    if unit.area.kind is MemoryKind.HUGE:
        return 0
    if unit.counted is not None:
        return unit.counted.overlap(start, end)
    return min(end - start, unit.area.resident)


def _count_left(parts: Iterable[MovingMemory], failed: Iterable[_Failed]) -> None:
    """Set the `left` of each part to the bytes that stayed, by reason."""
    for part in parts:
        part.left = {}
    for item in failed:
        left = item.unit.part.left
        left[item.reason] = left.get(item.reason, 0) + item.failure.size
