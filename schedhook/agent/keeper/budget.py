"""A budget of bytes for a span of time."""

from __future__ import annotations

from collections import deque

DAY = 86_400.0


class ByteBudget:
    """Bytes that were spent within the last `span` seconds.

    Times are seconds of one clock, ascending. Not thread-safe.
    """

    def __init__(self, span: float = DAY) -> None:
        self._span = span
        self._spent: deque[tuple[float, int]] = deque()
        self._total = 0

    def spend(self, size: int, now: float) -> None:
        """Add `size` bytes that were spent at `now`."""
        self._spent.append((now, size))
        self._total += size

    def spent(self, now: float) -> int:
        """Return the bytes that were spent within the span before `now`."""
        while self._spent and self._spent[0][0] <= now - self._span:
            self._total -= self._spent.popleft()[1]
        return self._total
