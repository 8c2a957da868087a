"""keep_local at work: what moves, what is written, and what is not written again."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from schedhook.agent.keep_local.looks import KEEPS_LOCAL
from schedhook.agent.keeper.decision import Verdict
from schedhook.roles.request import Request
from schedhook.testing.hosts import FakeArea, write_process
from schedhook.values.actions import ActionRule, Choice
from schedhook.values.config import Config
from schedhook.values.model import Report
from tests.unit.agent.one_job import ME
from tests.unit.agent.test_repatriation import Strays
from tests.unit.agentkit import FakeScheduler, event, with_actions

MIB = 1 << 20
KEY = ("fake", "1")
AWAY = {0: 8 * MIB, 3: 64 * MIB}


class Kept(Strays):
    """Job 1 with its memory on several nodes, and keep_local."""

    def __init__(self, directory: Path, residency: dict[int, int], config: Config) -> None:
        super().__init__(directory, config, residency)
        pages = {node: size >> 12 for node, size in residency.items()}
        area = FakeArea(start=1 << 20, size=sum(residency.values()), pages=pages)
        write_process(directory, ME, areas=[area])

    def deal(self) -> str:
        self.dispatcher.keeper.turn = KEY
        return self.dispatcher.handle(event("look", **{KEEPS_LOCAL: True}), 9.0).summary

    def lines(self) -> list[dict[str, Any]]:
        (run,) = self.journal.history("1")
        return [each for each in run["events"] if each["point"] == "keep-local"]


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(tmp_path, dict(AWAY), with_actions(keep_local=True))


def test_memory_comes_home_gently_and_is_written_down(kept: Kept) -> None:
    summary = kept.deal()
    (request,) = kept.moves.requests
    assert (request.home, request.sources, request.gentle) == (True, {3}, True)
    assert request.bandwidth_mb_s == 500
    (line,) = kept.lines()
    assert f"keep_local: {line['summary']}" == summary
    assert "64.0 MiB off-node" in summary
    assert "moved 1.0 MiB in 0.0 s" in summary  # so the stand-in says
    assert line["figures"]["verdict"] == "move"
    assert line["figures"]["off_node"] == 64 * MIB
    assert line["figures"]["kept"] == MIB
    assert kept.journal.history("1")[0]["off_node_gib_hours_avoided"] >= 0


def test_a_job_that_ends_while_it_moves_is_forgotten(kept: Kept) -> None:
    def carry_out(request: Request) -> Report:
        if not request.dry_run:
            kept.dispatcher.handle(event("end"), time.time())
        return kept.carry_out(request)

    kept.dispatcher._carry_out = carry_out
    kept.deal()
    assert len(kept.moves.requests) == 1
    assert kept.dispatcher.keeper.jobs == {}


def test_a_job_that_is_about_to_end_is_left_alone_and_that_is_written_once(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeScheduler, "time_left", lambda *_: 30.0)
    for _ in range(3):
        kept.deal()
    assert kept.moves.requests == []
    (line,) = kept.lines()
    assert line["summary"] == "64.0 MiB off-node (89%): the job ends in 30 s"
    kept.residency[3] = 256 * MIB
    kept.deal()
    assert len(kept.lines()) == 2, "the figures have changed"


def test_a_new_agent_does_not_write_the_same_decision_again(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    from schedhook.agent.keep_local.record import restore  # noqa: PLC0415

    monkeypatch.setattr(FakeScheduler, "time_left", lambda *_: 30.0)
    kept.deal()
    keeper = kept.dispatcher.keeper
    keeper.forget(KEY)
    restore(kept.dispatcher._records, KEY, keeper.state(KEY))
    kept.deal()
    assert len(kept.lines()) == 1


def test_a_job_whose_memory_is_all_at_home_is_not_read_again_at_once(kept: Kept) -> None:
    """There is no plan then: nothing of it could be off-node."""
    kept.dispatcher._carry_out = lambda request: replace(kept.carry_out(request), plan=None)
    kept.deal()
    state = kept.dispatcher.keeper.state(KEY)
    assert (state.verdict, state.again > 0) == (Verdict.AT_HOME, True)
    assert (kept.moves.requests, kept.lines()) == ([], [])


def test_a_suspended_job_and_one_out_of_turn_are_left_alone(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept.dispatcher.handle(event("look", **{KEEPS_LOCAL: True}), 9.0)
    monkeypatch.setattr(FakeScheduler, "suspended", lambda *_: True)
    kept.deal()
    assert (kept.moves.requests, kept.lines()) == ([], [])


def test_nothing_is_done_unless_configured(tmp_path: Path) -> None:
    kept = Kept(tmp_path, dict(AWAY), Config())
    kept.deal()
    assert (kept.moves.requests, kept.lines()) == ([], [])


def test_a_job_that_is_off_is_left_alone_and_that_is_written_once(tmp_path: Path) -> None:
    rule = ActionRule(schedulers=("fake",), choice=Choice.OFF)
    kept = Kept(tmp_path, dict(AWAY), with_actions(keep_local=True, rules=(rule,)))
    kept.deal()
    kept.deal()
    assert kept.moves.requests == []
    (line,) = kept.lines()
    assert line["summary"] == '0.0 MiB off-node: left alone, as configured (choice = "off")'


def test_the_end_of_a_job_says_what_was_gained(kept: Kept) -> None:
    kept.deal()
    state = kept.dispatcher.keeper.state(KEY)
    state.accrue(0.0)
    state.kept, state.avoided = 0, 7200.0 * (1 << 30)
    kept.dispatcher.handle(event("end"), 5000.0)
    (run,) = kept.journal.history("1")
    assert run["events"][-1]["summary"] == "2.000 GiB-hours off-node avoided"
    assert run["off_node_gib_hours_avoided"] == 2.0
    assert kept.journal.counters.read()["avoided", "fake"] == 7200.0 * (1 << 30)
    assert KEY not in kept.dispatcher.keeper.jobs
