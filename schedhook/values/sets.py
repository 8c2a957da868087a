"""Sets of NUMA nodes and processors, in the kernel's list format (`0-3,8`)."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Self

_LARGEST_ID = 1 << 16
_MOST_DIGITS = 20
_LONG = 64
"""Bits in a word of a mask."""


class IdSet(frozenset[int]):
    """An immutable set of small non-negative numbers that iterates in ascending order.

    The written form is the kernel's list format, as in /sys/devices/system/node/online and
    cpuset.cpus; see cpuset(7), "List format".
    """

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse `0-3,8`; blank text is the empty set. Raise ValueError and name the wrong part."""
        ids: set[int] = set()
        total = 0
        for part in filter(None, (part.strip() for part in text.strip().split(","))):
            first, dash, last = part.partition("-")
            if not (_is_number(first) and (not dash or _is_number(last))):
                raise ValueError(f"{part[:40]!r} is not a number or a range such as 0-3")
            if len(first) > _MOST_DIGITS or len(last) > _MOST_DIGITS:
                raise ValueError(f"{part[:40]!r} is larger than any node or processor number")
            low, high = int(first), int(last) if dash else int(first)
            if high < low:
                raise ValueError(f"the range {part!r} is descending; write the lower number first")
            if high > _LARGEST_ID:
                raise ValueError(f"{part!r} is larger than any node or processor number")
            total += high - low + 1
            if total > 2 * _LARGEST_ID:
                raise ValueError(f"{text[:40]!r}… repeats the same numbers too often")
            ids.update(range(low, high + 1))
        return cls(ids)

    def __new__(cls, ids: Iterable[int] = ()) -> Self:
        return super().__new__(cls, ids)

    def __iter__(self):  # type: ignore[no-untyped-def]  # frozenset's own signature
        return iter(sorted(super().__iter__()))

    def __str__(self) -> str:
        runs: list[list[int]] = []
        for number in self:
            if runs and number == runs[-1][1] + 1:
                runs[-1][1] = number
            else:
                runs.append([number, number])
        return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"

    def mask(self, size: int = 0) -> bytes:
        """Return a bit mask in whole longs, as system calls take it.

        It has room for the numbers below `size` and for all members.
        """
        bits = sum(1 << number for number in self)
        longs = (max(size, bits.bit_length(), 1) + _LONG - 1) // _LONG
        words = (bits >> at * _LONG & (1 << _LONG) - 1 for at in range(longs))
        return b"".join(word.to_bytes(_LONG // 8, sys.byteorder) for word in words)

    @classmethod
    def from_mask(cls, mask: bytes) -> Self:
        """Return the numbers in a bit mask in whole longs."""
        size = _LONG // 8
        words = [mask[at : at + size] for at in range(0, len(mask), size)]
        bits = sum(
            int.from_bytes(word, sys.byteorder) << at * _LONG for at, word in enumerate(words)
        )
        return cls(number for number in range(bits.bit_length()) if bits >> number & 1)

    def __or__(self, other: Iterable[int]) -> Self:  # type: ignore[override]
        return type(self)(self.union(other))

    def __and__(self, other: Iterable[int]) -> Self:  # type: ignore[override]
        return type(self)(self.intersection(other))

    def __sub__(self, other: Iterable[int]) -> Self:  # type: ignore[override]
        return type(self)(self.difference(other))


class NodeSet(IdSet):
    """A set of NUMA nodes."""

    __slots__ = ()


class CpuSet(IdSet):
    """A set of logical processors."""

    __slots__ = ()


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()
