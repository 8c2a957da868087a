"""Sizes of a process's mappings, /proc/PID/smaps."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from schedhook.host._proc import read, task_file

_PARTS = re.compile(
    rb"^(?:([0-9a-f]{1,16})-[0-9a-f]+ |"
    rb"(Rss|Pss|Shared_Hugetlb|Private_Hugetlb): +(\d{1,18}) kB)",
    re.MULTILINE,
)


def read_pss(
    pid: int, root: Path = Path("/"), *, task: int | None = None
) -> Mapping[int, tuple[int, int]]:
    """Return (rss, pss) in bytes by mapping start.

    pss counts each page divided by the number of processes that map it, so over all processes it
    adds up to the memory that is really in use. For shared huge pages (hugetlbfs) the kernel does
    not report the share: both values count them whole. This costs more than `read_areas`.
    """
    sizes: dict[int, tuple[int, int]] = {}
    start, rss, pss = -1, 0, 0
    for address, name, kilobytes in _PARTS.findall(read(pid, task_file("smaps", task), root)):
        if address:
            start, rss, pss = int(address, 16), 0, 0
        else:
            size = int(kilobytes) << 10
            rss += size if name != b"Pss" else 0
            pss += size if name != b"Rss" else 0
        sizes[start] = (rss, pss)
    return sizes
