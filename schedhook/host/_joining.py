"""Join small mappings that are alike: programs can have tens of thousands of them.

Thread stacks with guard pages, JVMs and memory allocators have such mappings, of a few pages each.
An object for each would cost more time and memory than moving the pages.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from schedhook.host._numa_maps import NumaLine
from schedhook.host.page_sizes import BASE_PAGE
from schedhook.values.extents import Extents
from schedhook.values.model import Area, MemoryKind
from schedhook.values.sizes import add_sizes

_LARGEST = 1 << 20
"""Bytes: a larger mapping stays an area of its own."""
_FURTHEST = 1 << 20
"""Bytes between two mappings up to which they are joined."""


def is_joinable(line: NumaLine, size: int) -> bool:
    """Return whether a private anonymous mapping of `size` bytes can be one of many.

    Pages that several processes map are looked at area by area.
    """
    return line.is_plain and line.size <= size <= _LARGEST


@dataclass(slots=True)
class JoinedMappings:
    """Private anonymous mappings, in ascending order, that have one memory policy."""

    start: int
    policy: str
    end: int
    """Of the last one, which is `start` until there is one."""
    begin: int
    """Of the last ones without a gap."""
    parts: Extents = field(default_factory=Extents)
    lines: dict[NumaLine, int] = field(default_factory=dict)
    """How often each text of numa_maps was found."""

    def take(self, start: int, end: int, line: NumaLine) -> bool:
        """Append a mapping if it can be one of these. Return whether."""
        if line.policy != self.policy or not self.end <= start <= self.end + _FURTHEST:
            return False
        if start > self.end:
            self.parts.add(self.begin, self.end)
            self.begin = start
        self.end = end
        self.lines[line] = self.lines.get(line, 0) + 1
        return True

    def area(self) -> Area:
        """Return all of them as one area."""
        residency: dict[int, int] = {}
        for line, times in self.lines.items():
            pages = {node: count * line.page_size * times for node, count in line.pages.items()}
            add_sizes(residency, pages)
        if self.parts:
            self.parts.add(self.begin, self.end)
        return Area(
            start=self.start,
            end=self.end,
            kind=MemoryKind.ANON,
            page_size=BASE_PAGE,
            residency=residency,
            policy=self.policy,
            parts=self.parts or None,
        )
