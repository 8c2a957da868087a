"""Threads that handle events: several jobs at one time, the events of one job in their order."""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from schedhook.agent.followup import EventResult
from schedhook.values.log import get_logger
from schedhook.values.model import Event

_log = get_logger()

Receipt = int | Path | None
"""What keeps an event until it has been handled: its number in the journal, or its file in the
spool."""


@dataclass(frozen=True, slots=True)
class _Item:
    event: Event
    at: float
    receipt: Receipt
    client: object

    @property
    def key(self) -> tuple[str, str]:
        return self.event.scheduler, self.event.job


class WorkerPool:
    """`work(event, at, receipt)` runs in a thread; `rouse` is called when something is finished."""

    def __init__(
        self,
        count: int,
        work: Callable[[Event, float, Receipt], EventResult],
        rouse: Callable[[], None],
    ) -> None:
        self._count = count
        self._work = work
        self._rouse = rouse
        self._condition = threading.Condition()
        self._waiting: dict[tuple[str, str], deque[_Item]] = defaultdict(deque)
        self._ready: deque[tuple[str, str]] = deque()
        """Jobs with events and nobody at work on them."""
        self._busy: set[tuple[str, str]] = set()
        self._finished: deque[tuple[Event, EventResult, object]] = deque()
        self._threads: list[threading.Thread] = []
        self._stopping = False

    def put(self, event: Event, at: float, receipt: Receipt, client: object) -> None:
        """Have an event handled. One that already waits is not put twice, unless somebody waits
        for its answer or it is kept somewhere."""
        item = _Item(event, at, receipt, client)
        with self._condition:
            waiting = self._waiting[item.key]
            if (
                receipt is None
                and client is None
                and any(other.event == event for other in waiting)
            ):
                return
            waiting.append(item)
            if item.key not in self._busy and len(waiting) == 1:
                self._ready.append(item.key)
                self._condition.notify()
            self.grow()

    def grow(self) -> None:
        """Have as many threads as there is work for; what waits for one that could not be made
        needs another call."""
        with self._condition:
            if len(self._threads) >= min(self._count, len(self._ready) + len(self._busy)):
                return
            # Daemons: a relocation that hangs in the kernel must not keep the process.
            thread = threading.Thread(target=self._run, daemon=True, name="schedhook-worker")
            try:
                thread.start()
            except RuntimeError as error:
                _log.error("no thread to be had", problem=str(error), threads=len(self._threads))
            else:
                self._threads.append(thread)

    def finished(self) -> list[tuple[Event, EventResult, object]]:
        """What has been handled since the last call: (event, result, who waits for it)."""
        with self._condition:
            done = list(self._finished)
            self._finished.clear()
        return done

    def stop(self, seconds: float) -> None:
        """Begin nothing more, and wait up to `seconds` for what has begun."""
        with self._condition:
            self._stopping = True
            self._condition.notify_all()
        end = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))

    def _run(self) -> None:
        while True:
            with self._condition:
                while not self._ready and not self._stopping:
                    self._condition.wait()
                if self._stopping:
                    return
                key = self._ready.popleft()
                item = self._waiting[key].popleft()
                self._busy.add(key)
            try:
                handled = self._work(item.event, item.at, item.receipt)
            except BaseException as error:  # noqa: BLE001 - a thread less would be a job not followed
                _log.error("worker failed", job=item.event.job, exc_info=True)
                handled = EventResult(summary=f"failed: {type(error).__name__}: {error}", ok=False)
            with self._condition:
                self._busy.discard(key)
                self._finished.append((item.event, handled, item.client))
                if self._waiting[key]:
                    self._ready.append(key)
                    self._condition.notify()
                else:
                    del self._waiting[key]
            self._rouse()
