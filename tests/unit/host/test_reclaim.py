"""What the kernel can give beyond free memory, against the kernel's own words for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from schedhook.host.reclaim import Watermarks, read_watermarks, reclaimable
from schedhook.host.topology import read_topology
from schedhook.testing import FakeNode, write_file, write_host

MIB = 1 << 20
ZONEINFO = """\
Node 0, zone      DMA
  per-node stats
      nr_inactive_anon 782043
  pages free     3840
        boost    0
        min      27
        low      33
        high     39
        spanned  4095
        managed  3840
        protection: (0, 3019, 9291, 9291, 9291)
      nr_free_pages 3840
  pagesets
    cpu: 0
              high:     0
              high_min: 16
Node 0, zone   Normal
  pages free     900000
        min      11387
        low      14233
        high     17079
        managed  1605632
        protection: (0, 0, 0, 0, 0)
Node 2, zone   Normal
  pages free     1
        low      50
        high     60
        managed  40
        protection: (0, 0, 0)
"""


def test_watermarks_are_summed_over_the_zones_of_a_node(tmp_path: Path) -> None:
    write_file(tmp_path, "proc/zoneinfo", ZONEINFO)
    found = read_watermarks(tmp_path, 4096)
    assert found[0] == Watermarks(low=(33 + 14233) * 4096, kept=(3840 + 17079) * 4096)
    assert found[2] == Watermarks(low=40 * 4096, kept=40 * 4096), "no more than the zone has"


def test_without_zoneinfo_nothing_is_kept(tmp_path: Path) -> None:
    assert read_watermarks(tmp_path, 4096) == {}


def test_this_host_has_watermarks_and_less_room_than_free_and_cache() -> None:
    node = next(iter(read_topology().nodes.values()))
    assert 0 < node.memory_kept < node.memory_total / 2
    assert 0 <= node.memory_reclaimable < node.memory_total
    assert node.room <= node.memory_free + node.memory_reclaimable


@pytest.mark.parametrize(
    ("others", "expected"),
    [
        ({}, 100),
        ({"Dirty": 30, "Writeback": 10}, 60),
        ({"Mapped": 50, "Shmem": 20}, 70),
        ({"Mapped": 50, "Shmem": 80}, 100),
        ({"Dirty": 500}, 0),
        ({"KReclaimable": 40}, 140),
        ({"SReclaimable": 40}, 140),
    ],
)
def test_only_clean_unmapped_cache_and_slab_can_be_dropped(
    others: dict[str, int], expected: int
) -> None:
    meminfo = {"Active(file)": 60, "Inactive(file)": 40, "Shmem": 0} | others
    assert reclaimable(meminfo, Watermarks()) == expected


def test_the_kernel_keeps_the_low_watermark_or_half_of_it() -> None:
    meminfo = {"Inactive(file)": 100, "KReclaimable": 10}
    assert reclaimable(meminfo, Watermarks(low=20)) == 80 + 5


def test_room_is_free_memory_less_what_the_kernel_keeps_and_clean_cache(tmp_path: Path) -> None:
    free, clean = 100 * MIB, 300 * MIB
    write_host(tmp_path, [FakeNode(number=0, cpus="0", free=free, reclaimable=clean)])
    write_file(tmp_path, "proc/zoneinfo", ZONEINFO)
    node = read_topology(tmp_path).node(0)
    kept, low = (3840 + 17079) * 4096, (33 + 14233) * 4096
    assert node.free_room == free - kept
    assert node.room == free - kept + clean - low
