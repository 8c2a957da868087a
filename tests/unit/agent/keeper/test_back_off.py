"""Memory that does not stay is moved less and less often."""

from __future__ import annotations

from schedhook.agent.keeper.back_off import BackOff
from schedhook.agent.keeper.budget import ByteBudget

GIB = 1 << 30


def test_memory_that_leaves_again_waits_longer_each_time() -> None:
    back_off, now, waits = BackOff(), 0.0, []
    for _ in range(12):
        back_off.note_move(GIB, 0, 2 * GIB, now)
        now += 60
        assert back_off.note_reading(GIB, GIB, now)
        waits.append(back_off.until - now)
        now = back_off.until
    assert waits[:4] == [300, 600, 1200, 2400]
    assert waits[-1] == 86_400


def test_new_memory_off_node_has_not_left() -> None:
    back_off = BackOff()
    back_off.note_move(GIB, 0, 2 * GIB, 0.0)
    assert not back_off.note_reading(4 * GIB, 2 * GIB, 60.0)
    assert back_off.until == 0


def test_freed_memory_has_not_left() -> None:
    back_off = BackOff()
    back_off.note_move(GIB, 0, 2 * GIB, 0.0)
    assert not back_off.note_reading(0, GIB // 4, 60.0)


def test_memory_that_does_not_come_along_counts_as_having_left() -> None:
    back_off = BackOff()
    back_off.note_move(GIB // 4, GIB, GIB, 100.0)
    assert back_off.until == 400


def test_memory_that_stays_is_forgiven() -> None:
    back_off = BackOff()
    for now in (0.0, 1000.0):
        back_off.note_move(GIB, 0, 2 * GIB, now)
        back_off.note_reading(GIB, GIB, now + 60)
    assert back_off.failures == 2
    back_off.note_move(GIB, 0, 2 * GIB, 2000.0)
    back_off.note_reading(0, 2 * GIB, 2000.0 + 4 * 600 + 1)
    assert back_off.failures == 0


def test_a_budget_is_that_of_a_sliding_day() -> None:
    budget = ByteBudget(100.0)
    budget.spend(5, 0.0)
    budget.spend(7, 60.0)
    assert [budget.spent(now) for now in (60.0, 99.0, 100.0, 160.0)] == [12, 12, 7, 0]
