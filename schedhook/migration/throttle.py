"""How hard a move presses on the host: threads, the processors they run on, and the rate."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterable

from schedhook.values.sets import CpuSet

MOST_THREADS = 8
"""Threads that are started without being asked for."""


def place_threads(wanted: int, new: CpuSet, old: CpuSet) -> tuple[int, CpuSet]:
    """How many threads, and the processors to bind them to (empty: none).

    `wanted` threads, 0: as many as there are `new` processors, the job's own, up to a bound:
    beyond, locks and the memory's bandwidth leave nothing to gain. They run on `new`, where these
    are too few also on `old`, so that no other job is disturbed; where both are, anywhere.
    """
    mine = CpuSet(os.sched_getaffinity(0))
    cpus = new & mine
    threads = wanted or min(MOST_THREADS, len(cpus)) or min(4, len(mine))
    if len(cpus) < threads:
        cpus = cpus | (old & mine)
    return threads, cpus if len(cpus) >= threads else CpuSet()


def bind_thread(cpus: CpuSet) -> None:
    """Bind the calling thread, which ends with its pool. Elsewhere it moves pages as well."""
    if cpus:
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, cpus)


class Throttle:
    """JobLocks the moved bytes to a rate over all threads."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._lock = threading.Lock()
        self._due = time.monotonic()

    def pieces(self, start: int, end: int, page_size: int) -> Iterable[tuple[int, int]]:
        """Cut [start, end) so that no piece holds more than a quarter second's worth."""
        if not self._rate:
            yield start, end
            return
        align = max(page_size, 2 << 20)
        step = max(align, int(self._rate / 4) // align * align)
        while start < end:
            stop = min(end, start // align * align + step)
            yield start, stop
            start = stop

    def spend(self, size: int) -> None:
        """Wait until `size` bytes more are within the rate."""
        if not self._rate:
            return
        with self._lock:
            now = time.monotonic()
            self._due = max(self._due, now) + size / self._rate
            wait = self._due - now
        time.sleep(wait)
