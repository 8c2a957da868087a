"""Free pages on processors' own lists, from /proc/zoneinfo."""

from __future__ import annotations

from pathlib import Path

import pytest

from schedhook.host.pagesets import Pageset, find_largest_pagesets
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
    ("cpus", "largest"),
    [
        ({0}, {0: (8, 0)}),
        ({1}, {0: (500, 1)}),
        ({0, 11}, {0: (70, 11)}),
        ({0, 1, 11, 64}, {0: (500, 1)}),
        ({64}, {}),
    ],
)
def test_the_largest(tmp_path: Path, cpus: set[int], largest: dict[int, tuple[int, int]]) -> None:
    """A processor's lists of a node's zones count together."""
    write_file(tmp_path, "proc/zoneinfo", ZONEINFO)
    found = find_largest_pagesets(cpus, tmp_path, 4096)
    assert found == {node: Pageset(4096 * pages, cpu) for node, (pages, cpu) in largest.items()}


def test_a_host_that_does_not_tell(tmp_path: Path) -> None:
    assert find_largest_pagesets({0}, tmp_path, 4096) == {}


def test_this_host() -> None:
    found = find_largest_pagesets({0}, Path("/"), 4096)
    assert found
    assert all(0 <= each.size < 1 << 34 for each in found.values())
