"""The sizes of the kernel's pages, which no other module asks the kernel for.

Sources: Documentation/admin-guide/mm/transhuge and hugetlbpage of the kernel, proc_meminfo(5).
"""

from __future__ import annotations

import mmap
from functools import cache
from pathlib import Path

from schedhook.host._sysfs import list_suffixes, read_meminfo, read_number
from schedhook.values.page_sizes import PageSizes

BASE_PAGE = mmap.PAGESIZE
"""Bytes of a base page of this host: no file under a `root` tells another one."""


@cache
def read_page_sizes(root: Path = Path("/")) -> PageSizes:
    """Return the sizes of the kernel's pages; they do not change while it runs."""
    kernel = root / "sys/kernel/mm"
    return PageSizes(
        base=BASE_PAGE,
        folio=read_number(kernel / "transparent_hugepage/hpage_pmd_size"),
        pools=tuple(size << 10 for size in list_suffixes(kernel / "hugepages", "hugepages-", "kB")),
        default_pool=read_meminfo(root / "proc/meminfo").get("Hugepagesize", 0),
    )
