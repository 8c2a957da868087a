"""The load of benchmarks/load.py, smaller: nothing is lost, nothing counts twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.load import history_seconds, measure, spool_events, write_history
from schedhook.agent.server import Agent
from schedhook.journal.journal import Journal
from schedhook.roles.scheduler import EventKind
from schedhook.values.config import Config
from tests.unit.agentkit import Moves, event, make_dispatcher


def test_a_busy_host_loses_no_event(tmp_path: Path) -> None:
    load = measure(tmp_path, jobs=40, hooks=40, spooled=1000)
    assert (load.lost, load.twice) == (0, 0)
    assert load.peak_memory < 100 << 20


def test_the_spool_is_read_in_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever calls while ten thousand events wait there is not kept waiting for all of them."""
    monkeypatch.setattr("schedhook.agent.server._SPOOL_SECONDS", 0.0)
    spool_events(tmp_path / "spool", 30)
    agent = Agent(make_dispatcher(tmp_path, Moves()), Config(), spool=tmp_path / "spool")
    try:
        turns = 0
        while agent._read_spool():
            turns += 1
        assert turns >= 29
        assert not list((tmp_path / "spool").iterdir())
    finally:
        agent._close()


def test_the_ends_of_many_jobs_are_one_reason_to_look(tmp_path: Path) -> None:
    agent = Agent(make_dispatcher(tmp_path, Moves()), Config())
    try:
        for number in range(100):
            look = event(EventKind.LOOK.value, "7", because=f"job {number} ended", repatriate=True)
            agent._later(look, 0.0)
        agent._later(event(EventKind.LOOK.value, "7"), 0.0)
        assert len(agent._timers) == 2
        agent._ring()
        agent._later(event(EventKind.LOOK.value, "7"), 60.0)
        assert len(agent._timers) == 1, "one that was rung may come again"
    finally:
        agent._close()


def test_a_long_history_is_told(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    jobs = write_history(path, 2000)
    assert history_seconds(path) > 0
    with Journal.open(path) as journal:
        assert len(journal.history(limit=10_000)) == jobs
        (run,) = journal.history("77")
        assert [len(run[key]) for key in ("events", "placements", "reports")] == [4, 4, 1]
