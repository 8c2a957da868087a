"""Threads that handle events: several jobs at a time, the events of one job in order."""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable

from schedhook.agent.events import QueuedEvent
from schedhook.agent.results import EventResult
from schedhook.values.log import get_logger
from schedhook.values.text import describe_error

_log = get_logger()

_JobKey = tuple[str, str]


class WorkerPool:
    """Calls `handle(queued)` in a thread for each event, and `wake()` after each one."""

    def __init__(
        self,
        count: int,
        handle: Callable[[QueuedEvent], EventResult],
        wake: Callable[[], None],
    ) -> None:
        self._count = count
        self._handle = handle
        self._wake = wake
        self._condition = threading.Condition()
        self._waiting: dict[_JobKey, deque[QueuedEvent]] = defaultdict(deque)
        self._ready: deque[_JobKey] = deque()
        """Jobs that have events and no thread."""
        self._busy: set[_JobKey] = set()
        """Jobs that have a thread."""
        self._finished: deque[tuple[QueuedEvent, EventResult]] = deque()
        self._threads: list[threading.Thread] = []
        self._stopping = False

    def put(self, queued: QueuedEvent) -> None:
        """Add an event, unless an equal one already waits and this one has no client or receipt."""
        with self._condition:
            waiting = self._waiting[queued.job_key]
            if _is_redundant(queued, waiting):
                return
            waiting.append(queued)
            if queued.job_key not in self._busy and len(waiting) == 1:
                self._ready.append(queued.job_key)
                self._condition.notify()
            self.grow()

    def grow(self) -> None:
        """Start one more thread if there is work for it.

        Call it again later: if no thread can be started now, work is left waiting.
        """
        with self._condition:
            if len(self._threads) >= min(self._count, len(self._ready) + len(self._busy)):
                return
            # A daemon, since a relocation that hangs in the kernel must not keep the process alive.
            thread = threading.Thread(target=self._run, daemon=True, name="schedhook-worker")
            try:
                thread.start()
            except RuntimeError as error:
                _log.error(
                    "cannot start a worker thread", problem=str(error), threads=len(self._threads)
                )
            else:
                self._threads.append(thread)

    def finished(self) -> list[tuple[QueuedEvent, EventResult]]:
        """Return what was handled since the last call."""
        with self._condition:
            done = list(self._finished)
            self._finished.clear()
        return done

    def stop(self, seconds: float) -> None:
        """Start no more events, and wait up to `seconds` for those that are being handled."""
        with self._condition:
            self._stopping = True
            self._condition.notify_all()
        end = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))

    def _run(self) -> None:
        while (queued := self._next()) is not None:
            result = self._handle_safely(queued)
            self._finish(queued, result)
            self._wake()

    def _next(self) -> QueuedEvent | None:
        """Wait for an event whose job has no thread; return None once the pool stops."""
        with self._condition:
            while not self._ready and not self._stopping:
                self._condition.wait()
            if self._stopping:
                return None
            job = self._ready.popleft()
            self._busy.add(job)
            return self._waiting[job].popleft()

    def _handle_safely(self, queued: QueuedEvent) -> EventResult:
        try:
            return self._handle(queued)
        except BaseException as error:  # noqa: BLE001 - a lost thread would be a job not followed
            _log.error("worker failed", job=queued.event.job, exc_info=True)
            return EventResult(summary=f"failed: {describe_error(error)}", ok=False)

    def _finish(self, queued: QueuedEvent, result: EventResult) -> None:
        job = queued.job_key
        with self._condition:
            self._busy.discard(job)
            self._finished.append((queued, result))
            if self._waiting[job]:
                self._ready.append(job)
                self._condition.notify()
            else:
                del self._waiting[job]


def _is_redundant(queued: QueuedEvent, waiting: deque[QueuedEvent]) -> bool:
    return (
        queued.receipt is None
        and queued.client is None
        and any(other.event == queued.event for other in waiting)
    )
