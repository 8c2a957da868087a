"""What has yet to move: taken in chunks that cut no page."""

from __future__ import annotations

import pytest

from schedhook.backends.simulated import PAGE, SimulatedArea, SimulatedBackend
from schedhook.migration.backlog import Backlog
from schedhook.migration.page_plan import PagePlan, Transfer
from schedhook.migration.processes import MovingProcess
from schedhook.values.extents import Extents

AT = 0x7F0000000000
HUGE = 2 << 20
KEY = (0, 1, False)


def process(*sizes: int, node: int = 0) -> MovingProcess:
    """Return a process with an area of each size, all of which is to go from node 0 to node 1."""
    backend = SimulatedBackend()
    areas = [
        SimulatedArea(start=AT + (index << 30), nodes=[node] * (size // PAGE))
        for index, size in enumerate(sizes)
    ]
    backend.add_process(100, areas=areas)
    found = MovingProcess(target=backend.attach(100), page_plan=PagePlan())
    assert found.page_plan
    for area in found.target.areas():
        pages = Extents([(area.start, area.end)])
        found.page_plan.add(
            Transfer(
                area=area, shared=False, start=area.start, end=area.end, old=0, new=1, pages=pages
            )
        )
    return found


@pytest.mark.parametrize("size", [HUGE, 3 * HUGE, 3 * HUGE + PAGE, 7 * HUGE])
def test_chunks_add_up_and_cut_no_huge_page(size: int) -> None:
    backlog = Backlog([process(10 * HUGE, PAGE, 5 * HUGE + 3 * PAGE)])
    whole, seen = backlog.sizes()[KEY], list[tuple[int, int]]()
    while backlog.sizes():
        before = backlog.sizes()[KEY]
        lots = backlog.take(KEY, size)
        taken = sum(lot.size for lot in lots)
        assert 0 < taken <= size
        assert taken == before - backlog.sizes().get(KEY, 0)
        seen += [pair for lot in lots for pair in lot.transfer.pages]
    assert sum(end - start for start, end in seen) == whole
    assert all(start % HUGE == 0 for start, _ in seen)


def test_a_page_larger_than_the_chunk_is_taken_whole() -> None:
    backlog = Backlog([process(4 * HUGE)])
    assert [lot.size for lot in backlog.take(KEY, PAGE)] == [HUGE]


@pytest.mark.parametrize(
    ("size", "is_possible"),
    [
        (PAGE, True),
        (4 * PAGE, True),
        (10 * PAGE, True),
        (HUGE + 4 * PAGE, True),
        (11 * PAGE, False),
    ],
)
def test_no_page_is_cut_to_leave_something_out(size: int, is_possible: bool) -> None:
    """As pages may be huge, an area of several MiB is cut between those only."""
    backlog = Backlog([process(4 * HUGE, PAGE, 3 * PAGE, 2 * HUGE + 6 * PAGE)])
    whole = backlog.sizes()[KEY]
    assert backlog.can_leave_out(KEY, size) is is_possible
    lots = backlog.leave_out(KEY, size)
    assert sum(lot.size for lot in lots) == (size if is_possible else 0)
    rest = backlog.take(KEY, 9 * HUGE)
    assert sum(lot.size for lot in rest) == whole - sum(lot.size for lot in lots)
    assert not backlog.sizes()
    starts = [start for lot in (*lots, *rest) for start, _ in lot.transfer.pages]
    assert all(start % HUGE == 0 for start in starts)


def test_only_living_processes_leave_something_out() -> None:
    ended, other = process(4 * PAGE), process(4 * PAGE)
    backlog = Backlog([ended, other])
    ended.gone = True
    assert [lot.part for lot in backlog.leave_out(KEY, 4 * PAGE)] == [other]


def test_processes_that_are_gone_have_nothing_to_move() -> None:
    ended, other = process(HUGE), process(3 * HUGE)
    backlog = Backlog([ended, other])
    ended.gone = True
    assert backlog.sizes() == {KEY: 3 * HUGE}
    assert [lot.part for lot in backlog.take(KEY, 9 * HUGE)] == [other]
    assert list(backlog.pending()) == []


def test_where_the_pages_of_a_lot_are() -> None:
    (lot,) = Backlog([process(HUGE)]).take(KEY, HUGE)
    assert lot.on(1) is None
    found = lot.on(0)
    assert found
    assert (found.size, found.transfer.old, found.transfer.new) == (HUGE, 0, 1)
