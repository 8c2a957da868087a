"""When page tables are read, what is remembered of moves, and what they gain."""

from __future__ import annotations

from dataclasses import replace

import pytest

from schedhook.agent.keeper.decision import Situation, Verdict
from schedhook.agent.keeper.keeper import Glance, Keeper, Rules

GIB = 1 << 30
KEY = ("slurm", "7")
AWAY = Glance(off_node=GIB, local=GIB)
HOME = Glance(off_node=1 << 20, local=2 * GIB)
SITUATION = Situation(off_node=GIB, resident=2 * GIB, fitting=GIB, remaining=36_000.0)
FULL = replace(SITUATION, fitting=0, details="full")


@pytest.fixture
def keeper() -> Keeper:
    return Keeper(Rules())


def wants(keeper: Keeper, now: float, glance: Glance = AWAY, room: int = 0) -> bool:
    return keeper.wants_reading(KEY, glance, now, {0: room})


def test_memory_at_home_is_never_read_page_by_page(keeper: Keeper) -> None:
    assert not any(wants(keeper, float(now), HOME) for now in range(0, 10_000, 20))


def test_memory_must_be_off_node_for_a_while(keeper: Keeper) -> None:
    seen = [wants(keeper, now) for now in (0.0, 5.0)]
    assert seen == [False, False]
    assert not wants(keeper, 8.0, HOME)
    assert [wants(keeper, now) for now in (9.0, 15.0, 19.0)] == [False, False, True]


def test_the_same_picture_is_not_read_again_before_its_time(keeper: Keeper) -> None:
    wants(keeper, 0.0)
    decision = keeper.decide(KEY, replace(SITUATION, remaining=30.0), 20.0, {})
    assert decision.verdict is Verdict.ENDING
    assert not wants(keeper, 40.0)
    assert not wants(keeper, 60.0, replace(AWAY, off_node=GIB * 5 // 4))
    assert wants(keeper, 60.0, replace(AWAY, off_node=GIB * 3 // 2))
    assert wants(keeper, 20.0 + decision.again)


def test_memory_without_room_waits_for_room(keeper: Keeper) -> None:
    wants(keeper, 0.0)
    assert keeper.decide(KEY, FULL, 20.0, {0: 5}).verdict is Verdict.NO_ROOM
    assert keeper.state(KEY).awaited == {0: 5}
    assert not wants(keeper, 40.0, room=1 << 20)
    assert wants(keeper, 60.0, room=1 << 30)
    assert keeper.decide(KEY, SITUATION, 60.0, {0: 1 << 30}).verdict is Verdict.MOVE


def test_figures_that_do_not_tell_all_are_checked_now_and_then(keeper: Keeper) -> None:
    vague = Glance(off_node=0, local=GIB, complete=False)
    assert [wants(keeper, now, vague) for now in (0.0, 10.0)] == [False, True]
    keeper.decide(KEY, replace(SITUATION, off_node=0), 10.0, {})
    assert [wants(keeper, now, vague) for now in (30.0, 609.0, 611.0)] == [False, False, True]


def test_many_jobs_that_are_checked_now_and_then_cost_little(keeper: Keeper) -> None:
    vague = Glance(off_node=0, local=GIB, complete=False)
    for number in range(200):
        keeper.wants_reading(("slurm", str(number)), vague, 0.0, {})
    wants(keeper, 0.0, vague)
    keeper.decide(KEY, replace(SITUATION, off_node=0), 10.0, {})
    keeper.took(KEY, 0.025, 10.0)
    assert not wants(keeper, 10.0 + 9_900, vague), "200 times 25 ms are a two-thousandth of that"
    assert wants(keeper, 10.0 + 10_100, vague)


def test_memory_that_leaves_again_is_left_alone(keeper: Keeper) -> None:
    keeper.moved(KEY, SITUATION, GIB, 2.0, 100.0)
    decision = keeper.decide(KEY, SITUATION, 200.0, {})
    assert (decision.verdict, decision.again) == (Verdict.LEAVES, 300.0)
    assert keeper.state(KEY).kept == 0


def test_the_rate_follows_what_was_reached(keeper: Keeper) -> None:
    for now in range(20):
        keeper.moved(KEY, SITUATION, GIB, 10.0, float(now))
    why = keeper.decide(("slurm", "8"), replace(SITUATION, remaining=400.0), 30.0, {}).why
    assert "s at 108 MB/s" in why
    keeper.moved(KEY, SITUATION, 16 << 20, 16.0, 40.0)
    why = keeper.decide(("slurm", "9"), replace(SITUATION, remaining=400.0), 50.0, {}).why
    assert "s at 107 MB/s" in why, "a small move says little"


@pytest.mark.parametrize(
    ("rules", "verdict"),
    [
        (Rules(job_daily=0.9), Verdict.JOB_BUDGET),
        (Rules(host_daily=2 * GIB), Verdict.HOST_BUDGET),
        (Rules(job_daily=0), Verdict.MOVE),
    ],
)
def test_a_day_has_a_budget(rules: Rules, verdict: Verdict) -> None:
    keeper = Keeper(rules)
    for now in (100.0, 5000.0):
        keeper.moved(KEY, SITUATION, GIB, 2.0, now)
    # The job has grown since: none of its memory has left again.
    grown = replace(SITUATION, resident=3 * GIB)
    assert keeper.decide(KEY, grown, 9000.0, {}).verdict is verdict
    assert keeper.decide(KEY, grown, 100_000.0, {}).verdict is Verdict.MOVE


def test_what_is_kept_at_home_counts(keeper: Keeper) -> None:
    keeper.moved(KEY, SITUATION, GIB, 2.0, 100.0)
    wants(keeper, 1100.0, HOME)
    assert keeper.take_gains() == {"slurm": 1000.0 * GIB}
    wants(keeper, 1200.0, replace(HOME, local=GIB // 2))  # it has freed some
    wants(keeper, 1300.0, HOME)
    assert keeper.take_gains() == {"slurm": 100.0 * GIB + 50.0 * GIB}
    assert keeper.take_gains() == {}


def test_jobs_that_went_without_notice_are_dropped_later(keeper: Keeper) -> None:
    wants(keeper, 100.0)
    keeper.forget_unseen(50.0, ())
    assert KEY in keeper.jobs
    keeper.forget_unseen(150.0, {KEY})
    assert KEY in keeper.jobs
    keeper.forget_unseen(150.0, ())
    assert KEY not in keeper.jobs
