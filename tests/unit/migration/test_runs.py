"""Areas, part by part."""

from __future__ import annotations

import pytest

from schedhook.backends.simulated import PAGE
from schedhook.migration.runs import UNIT_BYTES, clip, locate, spread
from schedhook.roles.backend import PageRun
from schedhook.values.extents import Extents
from schedhook.values.model import Area, MemoryKind
from tests.unit.relocation.simulation import AT, host


def test_only_the_wanted_pages_are_located() -> None:
    with host([0, 0, 1, 1, None, 0]).attach(100) as target:
        (area,) = target.areas()
        wanted = Extents([(AT + PAGE, AT + 3 * PAGE), (AT + 4 * PAGE, AT + 6 * PAGE)])
        found = [(run.start, run.end, run.node) for run in locate(target, area, wanted)]
    assert found == [
        (AT + PAGE, AT + 2 * PAGE, 0),
        (AT + 2 * PAGE, AT + 3 * PAGE, 1),
        (AT + 5 * PAGE, AT + 6 * PAGE, 0),
    ]


def test_all_pages_are_wanted_without_extents() -> None:
    run = PageRun(start=AT, end=AT + PAGE, node=0)
    assert (list(clip(run, None)), list(clip(run, Extents()))) == ([run], [])


@pytest.mark.parametrize("page_size", [PAGE, 2 << 20, 1 << 30])
def test_an_area_is_cut_between_huge_pages(page_size: int) -> None:
    size = 7 << 30
    area = Area(
        start=AT, end=AT + size, kind=MemoryKind.ANON, page_size=page_size, residency={0: size}
    )
    parts = list(spread(area))
    assert (parts[0][0], parts[-1][1]) == (area.start, area.end)
    assert [end for _, end in parts[:-1]] == [start for start, _ in parts[1:]]
    assert all(start % max(page_size, 2 << 20) == 0 for start, _ in parts[1:])
    assert len(parts) == (7 if page_size == 1 << 30 else size // UNIT_BYTES)


def test_an_area_without_much_memory_is_one_part() -> None:
    area = Area(
        start=AT, end=AT + (1 << 40), kind=MemoryKind.ANON, page_size=PAGE, residency={0: PAGE}
    )
    assert list(spread(area)) == [(area.start, area.end)]
