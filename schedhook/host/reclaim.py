"""What the kernel could give on a node beyond what is free: an estimate in the way of MemAvailable.

Sources: si_mem_available() in mm/show_mem.c, calculate_totalreserve_pages() in mm/page_alloc.c,
/proc/zoneinfo and a node's meminfo, proc(5).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from schedhook.host._sysfs import read_text

_NODE = re.compile(r"^Node (\d{1,9}), zone", re.MULTILINE | re.ASCII)
_FIELD = re.compile(r"^ +(low|high|managed) +(\d{1,20})$", re.MULTILINE | re.ASCII)
_PROTECTION = re.compile(r"^ +protection: \((.*)\)$", re.MULTILINE)
_PAGES = re.compile(r"\d{1,20}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Watermarks:
    """What the kernel holds back on a node, in bytes, summed over its zones."""

    low: int = 0
    """Below this much free memory the kernel reclaims in the background."""
    kept: int = 0
    """What an ordinary allocation leaves: each zone's high watermark and its lowmem reserve."""


def read_watermarks(root: Path, page_size: int) -> dict[int, Watermarks]:
    """Return the watermarks of each node from /proc/zoneinfo; no node if it cannot be read."""
    _, *parts = _NODE.split(read_text(root / "proc/zoneinfo"))
    found: dict[int, Watermarks] = {}
    for number, zone in zip(map(int, parts[::2]), parts[1::2], strict=True):
        fields = {name: int(pages) for name, pages in reversed(_FIELD.findall(zone))}
        protection = _PROTECTION.search(zone)
        reserve = max(map(int, _PAGES.findall(protection[1])), default=0) if protection else 0
        kept = min(reserve + fields.get("high", 0), fields.get("managed", 0))
        before = found.get(number, Watermarks())
        found[number] = Watermarks(
            low=before.low + min(fields.get("low", 0), fields.get("managed", 0)) * page_size,
            kept=before.kept + kept * page_size,
        )
    return found


def reclaimable(meminfo: Mapping[str, int], watermarks: Watermarks) -> int:
    """Return the bytes of clean page cache and slab that the kernel drops for an allocation.

    Left out are dirty pages and those under write-back, which must be written first; mapped files
    (programs and libraries in use, as far as Mapped exceeds Shmem); shared memory, tmpfs, mlocked
    and unevictable pages, which are on other lists. Of the rest the kernel keeps the low watermark,
    or half if that is less, as its own estimate does.
    """
    cache = meminfo.get("Active(file)", 0) + meminfo.get("Inactive(file)", 0)
    mapped = max(0, meminfo.get("Mapped", 0) - meminfo.get("Shmem", 0))
    cache -= meminfo.get("Dirty", 0) + meminfo.get("Writeback", 0) + mapped
    slab = meminfo.get("KReclaimable", meminfo.get("SReclaimable", 0))
    return sum(part - min(part // 2, watermarks.low) for part in (cache, slab) if part > 0)
