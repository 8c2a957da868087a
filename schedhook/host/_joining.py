"""Join small mappings that are alike: programs can have tens of thousands of them.

Thread stacks with guard pages, JVMs and memory allocators have such mappings, of a few pages each.
An object for each would cost more time and memory than moving the pages.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from schedhook.host import _joined
from schedhook.host._numa_maps import NumaLine, parse_line
from schedhook.host.page_sizes import BASE_PAGE
from schedhook.values.extents import Extents
from schedhook.values.model import Area, MemoryKind

_LARGEST = 1 << 20
"""Bytes: a larger mapping stays an area of its own."""
_FURTHEST = 1 << 20
"""Bytes between two mappings up to which they are joined."""


@dataclass(frozen=True, slots=True)
class Apart:
    """A mapping that is not joined, as numa_maps shows it."""

    start: int
    line: NumaLine
    bound: int | None
    """The address of the next mapping that is wanted; None for the last."""
    offset: int
    """Where to begin to look for it in maps."""


def read_joined(numa_maps: bytes, maps: bytes, *, resident_only: bool) -> Iterator[Area | Apart]:
    """Yield the mappings in ascending order; those that are small and alike as one area.

    Pages that several processes map are looked at area by area. `resident_only` leaves out mappings
    without pages in memory and without a policy.
    """
    for found in _joined.join_mappings(
        numa_maps, maps, resident_only, _LARGEST, _FURTHEST, BASE_PAGE
    ):
        if len(found) == 5:
            start, end, policy, pages, parts = found
            yield Area(
                start=start,
                end=end,
                kind=MemoryKind.ANON,
                page_size=BASE_PAGE,
                residency={node: count * BASE_PAGE for node, count in pages},
                policy=policy.decode("ascii", "replace"),
                parts=None if parts is None else Extents.from_raw(bytes(parts)),
            )
        else:
            start, bound, text, offset = found
            try:
                line = parse_line(text)
            except ValueError:  # a truncated line
                continue
            yield Apart(start, line, bound, offset)
