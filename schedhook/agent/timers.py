"""Events that are handled later: retries, and looks at jobs after another job has ended."""

from __future__ import annotations

import heapq
import itertools

from schedhook.values.model import Event


class DelayedEvents:
    """A queue of events by time. Times are of time.monotonic(), in seconds. Not thread-safe."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Event]] = []
        self._count = itertools.count()
        """Breaks ties, since events cannot be compared."""
        self._requests: set[tuple[object, ...]] = set()

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, event: Event, due: float) -> None:
        """Add an event, unless one that asks for the same is already waiting.

        If a hundred jobs end at once, every other job is still looked at only once.
        """
        request = _request_of(event)
        if request not in self._requests:
            self._requests.add(request)
            heapq.heappush(self._heap, (due, next(self._count), event))

    def pop_due(self, now: float) -> list[Event]:
        """Remove and return the events whose time has come, earliest first."""
        due = []
        while self._heap and self._heap[0][0] <= now:
            event = heapq.heappop(self._heap)[2]
            self._requests.discard(_request_of(event))
            due.append(event)
        return due

    def next_due(self) -> float | None:
        """Return when the next event is due, None if there is none."""
        return self._heap[0][0] if self._heap else None


def _request_of(event: Event) -> tuple[object, ...]:
    """Return what the event asks for, without its reason."""
    asked = (bool(event.data.get(key)) for key in ("repatriate", "keep_local"))
    return event.scheduler, event.job, event.point, *asked
