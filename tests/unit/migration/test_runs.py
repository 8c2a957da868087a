"""Areas, part by part."""

from __future__ import annotations

import pytest

from schedhook.backends.simulated import PAGE, SimulatedBackend
from schedhook.migration.runs import clip, locate, spread
from schedhook.roles.backend import PageRun
from schedhook.values.config import RelocationSection
from schedhook.values.extents import Extents
from schedhook.values.model import Area, MemoryKind
from schedhook.values.page_sizes import PageSizes
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


@pytest.mark.parametrize(
    ("base", "folio", "page_size", "count"),
    [
        (4 << 10, 2 << 20, 4 << 10, 224),
        (4 << 10, 2 << 20, 2 << 20, 224),
        (4 << 10, 2 << 20, 1 << 30, 7),
        (16 << 10, 32 << 20, 16 << 10, 224),
        (64 << 10, 512 << 20, 64 << 10, 14),
        (64 << 10, 0, 64 << 10, 224),
    ],
)
def test_an_area_is_cut_between_folios(base: int, folio: int, page_size: int, count: int) -> None:
    size = 7 << 30
    area = Area(
        start=AT, end=AT + size, kind=MemoryKind.ANON, page_size=page_size, residency={0: size}
    )
    backend = SimulatedBackend(page_sizes=PageSizes(base=base, folio=folio))
    backend.add_process(100)
    with backend.attach(100) as target:
        parts = list(spread(target, area))
    assert (parts[0][0], parts[-1][1]) == (area.start, area.end)
    assert [end for _, end in parts[:-1]] == [start for start, _ in parts[1:]]
    assert all(start % max(page_size, folio) == 0 for start, _ in parts[1:])
    assert len(parts) == count


@pytest.mark.parametrize("mib", [33, 63, 400, 1000])
def test_a_part_is_one_call(mib: int) -> None:
    """A call moves up to 32 MiB by default, and each one first waits for every processor."""
    size = mib << 20
    area = Area(
        start=AT, end=AT + size, kind=MemoryKind.ANON, page_size=4 << 10, residency={0: size}
    )
    with host([0]).attach(100) as target:
        sizes = [end - start for start, end in spread(target, area)]
    assert (sum(sizes), len(sizes)) == (size, -(-mib // 32))
    assert max(sizes) <= RelocationSection().batch_kb << 10


def test_an_area_without_much_memory_is_one_part() -> None:
    area = Area(
        start=AT, end=AT + (1 << 40), kind=MemoryKind.ANON, page_size=PAGE, residency={0: PAGE}
    )
    with host([0]).attach(100) as target:
        assert list(spread(target, area)) == [(area.start, area.end)]
