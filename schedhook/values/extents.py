"""Compact lists of address ranges, 16 bytes each, for millions of pages."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator


class Extents:
    """Ranges [start, end) in ascending order. Adjacent ranges are joined."""

    __slots__ = ("_bounds",)

    def __init__(self, pairs: Iterable[tuple[int, int]] = ()) -> None:
        self._bounds = array("Q")
        for start, end in pairs:
            self.add(start, end)

    def add(self, start: int, end: int) -> None:
        """Append a range. Raise ValueError if it is empty, or begins before the last one ends."""
        bounds = self._bounds
        if end <= start or (bounds and start < bounds[-1]):
            raise ValueError(f"{start:#x}-{end:#x} is empty, or not in ascending order")
        if bounds and bounds[-1] == start:
            bounds[-1] = end
        else:
            bounds.extend((start, end))

    def overlap(self, start: int, end: int) -> int:
        """Return how many bytes of [start, end) lie in the ranges."""
        return sum(last - first for first, last in self.within(start, end))

    def within(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Yield the parts of the ranges that lie in [start, end)."""
        bounds = self._bounds
        index = bisect_right(bounds, start) // 2 * 2
        while index < len(bounds) and bounds[index] < end:
            first, last = max(start, bounds[index]), min(end, bounds[index + 1])
            if first < last:
                yield first, last
            index += 2

    def outside(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Yield the parts of [start, end) that lie in none of the ranges."""
        for first, last in self.within(start, end):
            if start < first:
                yield start, first
            start = last
        if start < end:
            yield start, end

    @classmethod
    def from_raw(cls, raw: bytes) -> Extents:
        """Return the ranges that `raw` describes, as the method of that name returns them."""
        extents = cls()
        extents._bounds.frombytes(raw)
        return extents

    def raw(self) -> bytes:
        """Return start and end of each range, as 64-bit words in the machine's byte order."""
        return self._bounds.tobytes()

    @property
    def size(self) -> int:
        """The sum of the ranges' sizes in bytes."""
        return sum(end - start for start, end in self)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self._bounds[::2], self._bounds[1::2], strict=True)

    def __len__(self) -> int:
        return len(self._bounds) // 2

    def __repr__(self) -> str:
        return f"Extents([{', '.join(f'({start:#x}, {end:#x})' for start, end in self)}])"
