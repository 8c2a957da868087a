"""The number of accesses to each page from each node, in bounded memory.

Counts are per 4 KiB page, whatever the page size is later; those of a huge page are added up when
they are queried.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping

PAGE_BITS = 12
_NODE_BITS = 10
MOST_NODES = 1 << _NODE_BITS
CAPACITY = 2_000_000
"""The maximum number of counters, one for each page and node; about 130 bytes each."""
_CHECK_EVERY = 1 << 16


class Profile:
    """Counters by the number of the process or thread for which accesses were recorded.

    The number of counters is checked from time to time. If there are more than `capacity`, the
    lowest are dropped, and their accesses are added to `dropped`.
    """

    def __init__(self, capacity: int = CAPACITY) -> None:
        self.dropped = 0
        self._capacity = capacity
        self._calls = 0
        self._counts: defaultdict[int, dict[int, int]] = defaultdict(dict)

    def add(self, number: int, address: int, node: int, count: int = 1) -> None:
        """Count accesses to the page of `address` from `node`."""
        counts = self._counts[number]
        key = address >> PAGE_BITS << _NODE_BITS | node
        counts[key] = counts.get(key, 0) + count
        self._calls += 1
        if not self._calls % _CHECK_EVERY:
            self._thin()

    @property
    def numbers(self) -> list[int]:
        """The numbers of the processes and threads in the profile."""
        return list(self._counts)

    def total(self, number: int) -> int:
        """Return the number of accesses of this process or thread."""
        return sum(self._counts.get(number, {}).values())

    def accesses(self, numbers: Iterable[int]) -> Accesses:
        """Return a process's accesses; `numbers` are its own number and those of its threads."""
        parts = [self._counts[number] for number in numbers if number in self._counts]
        if len(parts) == 1:
            return Accesses(parts[0])
        total: dict[int, int] = {}
        for part in parts:
            for key, count in part.items():
                total[key] = total.get(key, 0) + count
        return Accesses(total)

    def _thin(self) -> None:
        """If there are too many counters, drop the lowest ones until a quarter is free."""
        entries = sum(map(len, self._counts.values()))
        if entries <= self._capacity:
            return
        frequency = Counter[int]()
        for counts in self._counts.values():
            frequency.update(counts.values())
        excess, limit = entries - self._capacity * 3 // 4, 0
        for count in sorted(frequency):
            if excess <= 0:
                break
            excess -= frequency[count]
            limit = count
        for number, counts in self._counts.items():
            left = {key: count for key, count in counts.items() if count > limit}
            self.dropped += sum(counts.values()) - sum(left.values())
            self._counts[number] = left


class Accesses:
    """The accesses of one process, 16 bytes for each page and node."""

    def __init__(self, counts: Mapping[int, int]) -> None:
        self._keys = array("Q", sorted(counts))
        self._counts = array("Q", (counts[key] for key in self._keys))

    @property
    def total(self) -> int:
        """All accesses."""
        return sum(self._counts)

    def __len__(self) -> int:
        """Return the number of counters, one for each page and node."""
        return len(self._keys)

    def between(self, start: int, end: int) -> Iterator[tuple[int, int, int]]:
        """Yield (page's address, accessing node, accesses) for [start, end), ascending."""
        for index in range(self._index(start), self._index(end)):
            key = self._keys[index]
            yield key >> _NODE_BITS << PAGE_BITS, key & MOST_NODES - 1, self._counts[index]

    def count(self, start: int, end: int) -> int:
        """Return the number of accesses to the pages in [start, end)."""
        return sum(self._counts[self._index(start) : self._index(end)])

    def _index(self, address: int) -> int:
        page = -(-address >> PAGE_BITS)
        return bisect_left(self._keys, page << _NODE_BITS)
