"""Free pages on processors' own lists, from /proc/zoneinfo."""

from __future__ import annotations

from pathlib import Path

import pytest

from schedhook.host.pagesets import read_pagesets
from schedhook.testing.hosts import write_file

ZONEINFO = """\
Node 0, zone      DMA
  pages free     3840
        low      10
  pagesets
    cpu: 0
              count: 3
              high:  4
              batch: 1
  vm stats threshold: 8
    cpu: 11
              count: 70
              high:  4
              batch: 1
Node 0, zone   Normal
  pagesets
    cpu: 0
              count: 5
    cpu: 1
              count: 500
Node 2, zone   Normal
  pages free     9
"""


@pytest.mark.parametrize(
    ("cpu", "pages"), [(0, {0: 8, 2: 0}), (1, {0: 500, 2: 0}), (11, {0: 70, 2: 0})]
)
def test_what_a_processor_has(tmp_path: Path, cpu: int, pages: dict[int, int]) -> None:
    write_file(tmp_path, "proc/zoneinfo", ZONEINFO)
    found = read_pagesets(cpu, tmp_path, 4096)
    assert found == {node: 4096 * count for node, count in pages.items()}


def test_a_host_that_does_not_tell(tmp_path: Path) -> None:
    assert read_pagesets(0, tmp_path, 4096) == {}


def test_this_host() -> None:
    found = read_pagesets(0, Path("/"), 4096)
    assert found
    assert all(0 <= size < 1 << 34 for size in found.values())
