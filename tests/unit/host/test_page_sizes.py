"""The sizes of the kernel's pages."""

from __future__ import annotations

import mmap
from pathlib import Path

from schedhook.host.page_sizes import read_page_sizes
from schedhook.testing.hosts import write_file
from schedhook.values.page_sizes import PageSizes


def test_all_sizes_are_the_kernels(tmp_path: Path) -> None:
    kernel = "sys/kernel/mm"
    write_file(tmp_path, f"{kernel}/transparent_hugepage/hpage_pmd_size", "536870912\n")
    for kilobytes in (16777216, 2048, 524288):
        write_file(tmp_path, f"{kernel}/hugepages/hugepages-{kilobytes}kB/nr_hugepages", "0\n")
    write_file(tmp_path, "proc/meminfo", "MemTotal: 4096 kB\nHugepagesize:     524288 kB\n")
    sizes = read_page_sizes(tmp_path)
    assert sizes == PageSizes(
        base=mmap.PAGESIZE,
        folio=512 << 20,
        pools=(2 << 20, 512 << 20, 16 << 30),
        default_pool=512 << 20,
    )
    assert [sizes.largest(size) for size in (64 << 10, 16 << 30)] == [512 << 20, 16 << 30]


def test_a_kernel_without_huge_pages_has_none(tmp_path: Path) -> None:
    assert read_page_sizes(tmp_path) == PageSizes(base=mmap.PAGESIZE)
