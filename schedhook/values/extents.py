"""Compact lists of address ranges for millions of pages."""

from __future__ import annotations

import re
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator

_ONES = re.compile("1+")


class Extents:
    """Ranges [start, end) in ascending order, 16 bytes each. Adjacent ranges are joined."""

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

    def extend(self, more: Extents) -> None:
        """Append all ranges of `more`. Raise ValueError if they begin before the last one ends."""
        bounds = more._bounds
        if bounds:
            self.add(*bounds[:2])
            self._bounds.extend(bounds[2:])

    def cut(self, start: int, end: int) -> Extents:
        """Return the parts of the ranges that lie in [start, end), copied at once, not one by one.

        There can be 100,000 ranges.
        """
        found = Extents()
        first = bisect_right(self._bounds, start) // 2 * 2
        last = (bisect_left(self._bounds, end) + 1) // 2 * 2
        if start < end and first < last:
            found._bounds = bounds = self._bounds[first:last]
            bounds[0], bounds[-1] = max(start, bounds[0]), min(end, bounds[-1])
        return found

    def overlap(self, start: int, end: int) -> int:
        """Return how many bytes of [start, end) lie in the ranges."""
        return self.cut(start, end).size

    def within(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Return the ranges of `cut`, one after another."""
        return iter(self.cut(start, end))

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
        return sum(self._bounds[1::2]) - sum(self._bounds[::2])

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self._bounds[::2], self._bounds[1::2], strict=True)

    def __len__(self) -> int:
        return len(self._bounds) // 2

    def __repr__(self) -> str:
        return f"Extents([{', '.join(f'({start:#x}, {end:#x})' for start, end in self)}])"


class PackedExtents:
    """Ranges of whole pages in little memory: at most a bit for each page that they span."""

    __slots__ = ("_data", "_is_bitmap", "_start", "_unit")

    def __init__(self, extents: Extents, unit: int) -> None:
        """Pack ranges, at least one; `unit` is the size of a page in bytes."""
        pairs = list(extents)
        self._start, self._unit = pairs[0][0], unit
        self._data = extents.raw()
        self._is_bitmap = (pairs[-1][1] - self._start) // unit < 8 * len(self._data)
        if self._is_bitmap:
            bits = 0
            for start, end in pairs:
                first, last = (start - self._start) // unit, (end - self._start) // unit
                bits |= (1 << last) - (1 << first)
            self._data = bits.to_bytes(-(-bits.bit_length() // 8), "little")

    def extents(self) -> Extents:
        """Return the ranges."""
        if not self._is_bitmap:
            return Extents.from_raw(self._data)
        bits = format(int.from_bytes(self._data, "little"), "b")[::-1]
        return Extents(
            (self._start + found.start() * self._unit, self._start + found.end() * self._unit)
            for found in _ONES.finditer(bits)
        )

    @property
    def memory(self) -> int:
        """The bytes of memory that the ranges take."""
        return len(self._data)
