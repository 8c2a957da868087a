"""Jobs trade places: which take part, what is asked for, and what is written down."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from schedhook.agent.dispatcher import Dispatcher
from schedhook.agent.keep_local.looks import KEEPS_LOCAL
from schedhook.agent.keeper.decision import Verdict
from schedhook.jobs.choice import record_choice
from schedhook.journal.journal import Journal
from schedhook.roles.request import Request
from schedhook.testing.hosts import FakeArea, FakeNode, write_host, write_process
from schedhook.values.config import Config, KeepLocalSection
from schedhook.values.model import NodeMap, Outcome, Plan, ProcessPlan, Report
from schedhook.values.room import Room
from schedhook.values.sets import NodeSet
from tests.unit.agent.one_job import ME, PARENT
from tests.unit.agentkit import FakeScheduler, event, place, plugins, with_actions

MIB = 1 << 20
SIZE = 64 * MIB
HOME = {"1": (ME, 0), "2": (PARENT, 1)}
"""Process and node of each job; its memory is on the other one's node."""


class Full:
    """Two jobs on each other's nodes, which have no room; in place of the pipeline."""

    def __init__(self, directory: Path, config: Config, moved: int = SIZE) -> None:
        self.directory = directory
        self.moved = moved
        self.asked: list[Sequence[Request]] = []
        write_host(directory, [FakeNode(number=n, cpus=str(n)) for n in range(2)])
        area = FakeArea(start=1 << 20, size=SIZE, pages={})
        for pid, node in HOME.values():
            write_process(directory, pid, areas=[replace(area, pages={1 - node: SIZE >> 12})])
        self.journal = Journal.in_memory()
        self.dispatcher = Dispatcher(
            config, plugins(directory), self.journal, root=directory,
            carry_out=self.plan, rebalance=self.rebalance,
        )  # fmt: skip
        for job, (pid, node) in HOME.items():
            place(directory, job, {"0.0": ([pid], str(node), str(node))})
            for point in ("begin", "look"):
                self.dispatcher.handle(event(point, job), 1.0)

    def plan(self, request: Request) -> Report:
        assert request.dry_run, "nothing fits by itself"
        (pid,) = request.pids
        old, new = (1, 0) if pid == ME else (0, 1)
        its = ProcessPlan(pid=pid, command="", residency={old: SIZE}, moves={(old, new): SIZE})
        none = Room(nodes=NodeSet({new}), size=0, reserve=0)
        report = self.report(Outcome.PLANNED, old, new)
        plan = Plan(
            strategy="s", backend="b", node_map=report.node_map, processes=(its,), rooms=(none,)
        )
        return replace(report, plan=plan)

    def rebalance(self, requests: Sequence[Request]) -> Sequence[Report]:
        self.asked.append(requests)
        if self.moved:
            done = replace(self.report(Outcome.COMPLETE, 1, 0), bytes_moved=self.moved)
        else:
            done = replace(self.report(Outcome.REFUSED, 1, 0), notes=("full",))
        return [replace(done, job=each.job) for each in requests]

    def report(self, outcome: Outcome, old: int, new: int) -> Report:
        node_map = NodeMap(pairs={old: new})
        return Report(outcome=outcome, strategy="s", backend="b", node_map=node_map)

    def deal(self, job: str) -> str:
        self.dispatcher.keeper.turn = ("fake", job)
        return self.dispatcher.handle(event("look", job, **{KEEPS_LOCAL: True}), 9.0).summary

    def lines(self, job: str) -> list[str]:
        (run,) = self.journal.history(job)
        return [each["summary"] for each in run["events"] if each["point"] == "keep-local"]


@pytest.fixture
def full(tmp_path: Path) -> Full:
    return Full(tmp_path, with_actions(keep_local=True))


def test_a_job_that_waits_for_room_trades_places_with_another_one(full: Full) -> None:
    assert "wait for room" in full.deal("1")
    assert full.asked == [], "no other job waits"
    summary = full.deal("2")
    (asked,) = full.asked
    assert [(each.job, each.pids, each.gentle) for each in asked] == [
        ("2", (PARENT,), True),
        ("1", (ME,), True),
    ]
    assert "64.0 MiB off-node: traded places with 1; moved 64.0 MiB" in summary
    assert full.lines("2") == [summary.removeprefix("keep_local: ")]
    assert "traded places with 2" in full.lines("1")[1]
    assert full.dispatcher.keeper.waiting() == []
    assert full.dispatcher.keeper.state(("fake", "1")).kept == SIZE
    assert [len(full.journal.history(job)[0]["reports"]) for job in HOME] == [1, 1]


def test_what_does_not_fit_even_together_is_said_once(tmp_path: Path) -> None:
    full = Full(tmp_path, with_actions(keep_local=True), moved=0)
    for job in ("1", "2", "1", "2"):
        full.deal(job)
    assert len(full.asked) == 3, "each time when another one waits"
    assert [len(full.lines(job)) for job in HOME] == [1, 1]
    assert full.lines("2")[0].endswith("; a trade with 1: moved 0.0 MiB 1:0, refused: full")
    assert [full.journal.history(job)[0]["reports"] for job in HOME] == [[], []]
    assert len(full.dispatcher.keeper.waiting()) == 2


@pytest.mark.parametrize("why", ["suspended", "ending", "off", "busy", "budget"])
def test_a_job_that_must_not_move_takes_no_part(
    why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = with_actions(keep_local=True)
    if why == "budget":
        config = replace(config, keep_local=KeepLocalSection(host_daily_gb=1))
    full = Full(tmp_path, config)
    full.deal("1")
    keeper, held = full.dispatcher.keeper, full.dispatcher._held
    if why == "suspended":
        monkeypatch.setattr(FakeScheduler, "suspended", lambda _, job: job == "1")
    if why == "ending":
        monkeypatch.setattr(FakeScheduler, "time_left", lambda _, job: 30.0 * int(job) ** 9)
    if why == "off":
        record_choice(full.dispatcher.adapter("fake"), "1", "off")
    if why == "budget":
        keeper._host.spend((1 << 30) - SIZE, time.monotonic())
    if why == "busy":
        with held.hold("fake", "1"):
            full.deal("2")
    else:
        full.deal("2")
    assert full.asked == []


def test_a_job_that_cannot_be_read_does_not_keep_the_others_from_trading(
    full: Full, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its adapter may fail, and its user may have it do so."""
    full.dispatcher.keeper.state(("fake", "0")).verdict = Verdict.NO_ROOM
    full.dispatcher.keeper.state(("gone", "7")).verdict = Verdict.NO_ROOM
    suspended = FakeScheduler.suspended

    def fail(self: FakeScheduler, job: str) -> bool:
        if job == "0":
            raise SystemExit("out of order")
        return suspended(self, job)

    monkeypatch.setattr(FakeScheduler, "suspended", fail)
    full.deal("1")
    assert "traded places with 1" in full.deal("2")


def test_as_many_trade_places_as_the_budget_allows(tmp_path: Path) -> None:
    config = with_actions(keep_local=True)
    config = replace(config, keep_local=KeepLocalSection(host_daily_gb=1))
    full = Full(tmp_path, config, moved=0)
    place(tmp_path, "3", {"0.0": ([PARENT], "1", "1")})
    for point in ("begin", "look"):
        full.dispatcher.handle(event(point, "3"), 1.0)
    for job in ("1", "3"):
        full.deal(job)
    full.asked.clear()
    keeper = full.dispatcher.keeper
    keeper._host.spend((1 << 30) - 2 * SIZE, time.monotonic())
    full.deal("2")
    assert [[each.job for each in asked] for asked in full.asked] == [["2", "1"]]


def test_each_jobs_rate_is_that_of_the_trade(full: Full, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a trade among many would let memory seem slow to move, and not worth it."""
    keeper, seen = full.dispatcher.keeper, []
    moved = keeper.moved

    def note(*arguments: Any) -> None:
        seen.append(arguments[2] / arguments[3])
        moved(*arguments)

    def rebalance(requests: Sequence[Request]) -> Sequence[Report]:
        time.sleep(0.2)
        return full.rebalance(requests)

    monkeypatch.setattr(keeper, "moved", note)
    monkeypatch.setattr(full.dispatcher, "_rebalance", rebalance)
    full.deal("1")
    began = time.monotonic()
    full.deal("2")
    most = time.monotonic() - began
    assert len(seen) == 2
    assert all(rate > 2 * SIZE / most for rate in seen)


def test_the_other_job_is_held_meanwhile(full: Full, monkeypatch: pytest.MonkeyPatch) -> None:
    """An event of it is handled once the memory has moved."""
    full.deal("1")
    said = []

    def rebalance(requests: Sequence[Request]) -> Sequence[Report]:
        said.append(full.dispatcher.handle(event("look", "1"), 9.0))
        return full.rebalance(requests)

    monkeypatch.setattr(full.dispatcher, "_rebalance", rebalance)
    full.deal("2")
    assert said[0].retry_after
    assert "the agent is moving memory of job 1" in said[0].summary
    assert full.dispatcher.handle(event("look", "1"), 9.0).retry_after is None


def test_a_job_that_ends_meanwhile_is_forgotten(
    full: Full, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rebalance(requests: Sequence[Request]) -> Sequence[Report]:
        full.dispatcher.handle(event("end", "1"), time.time())
        return full.rebalance(requests)

    full.deal("1")
    monkeypatch.setattr(full.dispatcher, "_rebalance", rebalance)
    assert "traded places with 1" in full.deal("2")
    assert list(full.dispatcher.keeper.jobs) == [("fake", "2")]
    assert len(full.lines("1")) == 1, "that it waited"


def test_a_job_that_takes_no_part_is_not_held(full: Full, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hook that resumes it would wait for the trade."""
    pid, _ = HOME["1"]
    place(full.directory, "3", {"0.0": ([pid], "0", "0")})
    for point in ("begin", "look"):
        full.dispatcher.handle(event(point, "3"), 1.0)
    full.moved = 0
    for job in ("1", "3"):
        full.deal(job)
    said = []

    def rebalance(requests: Sequence[Request]) -> Sequence[Report]:
        said.append([full.dispatcher.handle(event("look", job), 9.0) for job in ("1", "3")])
        return full.rebalance(requests)

    monkeypatch.setattr(FakeScheduler, "suspended", lambda _, job: job == "3")
    monkeypatch.setattr(full.dispatcher, "_rebalance", rebalance)
    full.deal("2")
    assert [bool(each.retry_after) for each in said[0]] == [True, False]


def test_a_job_that_waits_is_one_without_room(full: Full) -> None:
    full.deal("1")
    assert full.dispatcher.keeper.waiting() == [("fake", "1")]
    assert full.dispatcher.keeper.state(("fake", "1")).verdict is Verdict.NO_ROOM
