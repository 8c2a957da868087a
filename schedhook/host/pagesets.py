"""Free pages that a processor keeps for itself: the kernel does not count them as free.

Pages that a processor frees stay on a list of its own, up to a node's low watermark divided by the
node's processors, and it allocates from there first: mm/page_alloc.c, /proc/zoneinfo.
"""

from __future__ import annotations

import re
from pathlib import Path

from schedhook.host._sysfs import read_text

_NODE = re.compile(r"^Node (\d{1,9}), zone", re.MULTILINE | re.ASCII)


def read_pagesets(cpu: int, root: Path, page_size: int) -> dict[int, int]:
    """Return the bytes on the lists of this processor by node; no node if they cannot be read."""
    count = re.compile(rf"^ +cpu: {cpu}\n +count: +(\d{{1,20}})$", re.MULTILINE | re.ASCII)
    _, *parts = _NODE.split(read_text(root / "proc/zoneinfo"))
    found: dict[int, int] = {}
    for number, zone in zip(map(int, parts[::2]), parts[1::2], strict=True):
        pages = count.search(zone)
        found[number] = found.get(number, 0) + (int(pages[1]) * page_size if pages else 0)
    return found
