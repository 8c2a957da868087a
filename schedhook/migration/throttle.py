"""The load that a move puts on the host: threads, their processors, and the rate."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator

from schedhook.values.extents import Extents
from schedhook.values.sets import CpuSet

MOST_THREADS = 8
"""Threads that are started at most if the request and the configuration name no number."""


def choose_threads(wanted: int, new: CpuSet, old: CpuSet) -> tuple[int, CpuSet]:
    """Return how many threads to start, and the processors to bind them to (empty: do not bind).

    `wanted` threads; 0 means as many as there are `new` processors, the job's own, up to
    MOST_THREADS: beyond that, locks and memory bandwidth leave nothing to gain. They run on
    `new`, and on `old` too if `new` has too few, so that no other job is disturbed; anywhere if
    both together have too few.
    """
    mine = CpuSet(os.sched_getaffinity(0))
    cpus = new & mine
    threads = wanted or min(MOST_THREADS, len(cpus)) or min(4, len(mine))
    if len(cpus) < threads:
        cpus = cpus | (old & mine)
    return threads, cpus if len(cpus) >= threads else CpuSet()


def bind_thread(cpus: CpuSet) -> None:
    """Bind the calling thread to `cpus`; if that fails, it moves pages from anywhere else.

    The binding ends with the thread, which ends with its pool.
    """
    if cpus:
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, cpus)


@contextlib.contextmanager
def bound_thread(cpus: CpuSet) -> Iterator[None]:
    """Bind the calling thread, and those that it starts meanwhile, as `bind_thread` does.

    Without `cpus` they run where they may.
    """
    before = CpuSet(os.sched_getaffinity(0))
    bind_thread(cpus)
    try:
        yield
    finally:
        bind_thread(before)


class Throttle:
    """Holds the moved bytes to a rate (bytes per second, 0: unlimited) over all threads."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._lock = threading.Lock()
        self._due = time.monotonic()

    def pieces(
        self,
        start: int,
        end: int,
        boundary: Callable[[int], int],
        largest: int,
        counted: Extents | None = None,
    ) -> Iterator[tuple[int, int]]:
        """Cut [start, end) so that no piece holds more than about a quarter of a second's worth.

        `boundary` returns the first address from another one on at which a cut is possible, and is
        a multiple of `largest`, the size of the largest page, where it cannot tell. What is not in
        `counted` does not count.
        """
        if not self._rate:
            yield start, end
            return
        step = max(1, int(self._rate / 4))
        held, position = 0, start
        for first, last in ((start, end),) if counted is None else counted.within(start, end):
            if held and held + last - first > step:
                is_between = -(-position // largest) * largest <= first
                if is_between or boundary(first) == first:
                    yield start, first
                    start, held = first, 0
            position = first
            while last - position > step and (stop := boundary(position + step)) < last:
                yield start, stop
                start = position = stop
            held += last - position
            position = last
        yield start, end

    def spend(self, size: int) -> None:
        """Wait until another `size` bytes fit into the rate."""
        if not self._rate:
            return
        with self._lock:
            now = time.monotonic()
            self._due = max(self._due, now) + size / self._rate
            wait = self._due - now
        time.sleep(min(wait, threading.TIMEOUT_MAX))
