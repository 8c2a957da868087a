"""Free pages that a processor keeps for itself: the kernel does not count them as free.

Pages that a processor frees stay on a list of its own, up to a node's low watermark divided by the
node's processors, and it allocates from there first: mm/page_alloc.c, /proc/zoneinfo. A processor
that became idle can keep them for ever.
"""

from __future__ import annotations

import re
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path

from schedhook.host._sysfs import read_text
from schedhook.values.sizes import add_sizes

_NODE = re.compile(r"^Node (\d{1,9}), zone", re.MULTILINE | re.ASCII)
_COUNT = re.compile(r"^ +cpu: (\d{1,9})\n +count: +(\d{1,20})$", re.MULTILINE | re.ASCII)


@dataclass(frozen=True, slots=True, order=True)
class Pageset:
    """A processor's list of a node's free pages."""

    size: int
    """Bytes."""
    cpu: int


def find_largest_pagesets(cpus: Set[int], root: Path, page_size: int) -> dict[int, Pageset]:
    """Return the largest list of those processors by node; no node if they cannot be read."""
    _, *parts = _NODE.split(read_text(root / "proc/zoneinfo"))
    found: dict[int, dict[int, int]] = {}
    for number, zone in zip(map(int, parts[::2]), parts[1::2], strict=True):
        sizes = found.setdefault(number, {})
        for cpu, count in _COUNT.findall(zone):
            if int(cpu) in cpus:
                add_sizes(sizes, {int(cpu): int(count) * page_size})
    return {
        node: max(Pageset(size, cpu) for cpu, size in sizes.items())
        for node, sizes in found.items()
        if sizes
    }
