"""The moves that a job's own changes may cause."""

from __future__ import annotations

from pathlib import Path

import pytest

from schedhook.agent.budget import MoveBudget
from schedhook.agent.events import make_retry
from schedhook.values.config import WatchSection
from schedhook.values.model import Outcome
from tests.unit.agent.one_job import OneJob
from tests.unit.agentkit import event, homes

JOB = ("fake", "1")


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("schedhook.agent.budget.time", clock)
    return clock


def test_pauses_grow_and_have_a_limit(clock: Clock) -> None:
    budget = MoveBudget(WatchSection(move_pause_s=30, longest_move_pause_s=100))
    pauses = []
    for _ in range(6):
        budget.spend(JOB, 0.1)
        pauses.append(budget.wait(JOB))
        clock.now += pauses[-1]
        assert budget.wait(JOB) == 0
    assert pauses == [0, 0, 30, 60, 100, 100]
    assert budget.wait(("fake", "2")) == 0


def test_a_job_that_was_left_alone_may_move_at_once(clock: Clock) -> None:
    budget = MoveBudget(WatchSection())
    for _ in range(4):
        budget.spend(JOB, 0.1)
    assert budget.wait(JOB) == 60
    clock.now += 600
    budget.wait(JOB)
    for _ in range(2):
        budget.spend(JOB, 0.1)
        assert budget.wait(JOB) == 0


def test_long_moves_take_a_small_share_of_the_time(clock: Clock) -> None:
    del clock
    budget = MoveBudget(WatchSection(moves_at_once=1))
    budget.spend(JOB, 10)
    assert budget.wait(JOB) == pytest.approx(200)


def test_pauses_can_be_switched_off() -> None:
    budget = MoveBudget(WatchSection(move_pause_s=0))
    for _ in range(100):
        budget.spend(JOB, 100)
    assert budget.wait(JOB) == 0


def flip(one: OneJob, times: int) -> list[str]:
    """Bind the first task here and there; return what the watcher's looks said."""
    said = []
    for number in range(times):
        one.put("2" if number % 2 == 0 else "0", "1")
        said.append(one.look(seen_by="watch"))
    return said


def test_a_job_that_is_bound_anew_all_the_time_is_held_back(tmp_path: Path, clock: Clock) -> None:
    one = OneJob(tmp_path)
    said = flip(one, 10)
    assert len(one.moves.requests) == 3
    assert said[3] == "changes too often: its memory follows in 30 s, see moves_at_once"
    assert homes(one.journal, "fake", "1")["0.0"].nodes == {2}

    # After the pause the memory follows once, from all nodes where it may be.
    clock.now += 30
    one.put("3", "1")
    handled = one.dispatcher.handle(make_retry(event("look", seen_by="watch")), 9.0)
    assert handled.ok
    assert len(one.moves.requests) == 4
    assert homes(one.journal, "fake", "1")["0.0"].nodes == {3}


def test_only_the_first_wait_is_worth_a_line_in_the_history(tmp_path: Path, clock: Clock) -> None:
    one = OneJob(tmp_path)
    flip(one, 3)
    results = []
    for where in ("2", "0", "3"):
        one.put(where, "1")
        results.append(one.dispatcher.handle(event("look", seen_by="watch"), 3.0))
    assert [result.acted for result in results if result.retry_after] == [True, False]
    clock.now += 30


def test_what_a_hook_reports_is_done_at_once(tmp_path: Path, clock: Clock) -> None:
    one = OneJob(tmp_path)
    flip(one, 5)
    before = len(one.moves.requests)
    for where in ("3", "2", "3", "2"):
        one.put(where, "1")
        one.look()
    assert len(one.moves.requests) == before + 4
    assert clock.now == 1000


def test_a_refusal_that_is_tried_again_costs_nothing(tmp_path: Path, clock: Clock) -> None:
    one = OneJob(tmp_path)
    one.moves.outcome = Outcome.REFUSED
    one.put("2", "1")
    again = event("look", seen_by="watch")
    for _ in range(10):
        handled = one.dispatcher.handle(again, 3.0)
        assert handled.retry_after == 60
        again = make_retry(again)
    assert len(one.moves.requests) == 10
    assert clock.now == 1000
