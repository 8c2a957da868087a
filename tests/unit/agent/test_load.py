"""The load of benchmarks/load.py, smaller: nothing is lost, nothing counts twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.load import history_seconds, measure, spool_events, write_history
from schedhook.agent.inbox import Inbox
from schedhook.agent.timers import DelayedEvents
from schedhook.journal.journal import Journal
from schedhook.roles.scheduler import EventKind
from tests.unit.agentkit import Moves, event, make_dispatcher


def test_a_busy_host_loses_no_event(tmp_path: Path) -> None:
    load = measure(tmp_path, jobs=40, hooks=40, spooled=1000)
    assert (load.lost, load.twice) == (0, 0)
    assert load.peak_memory < 100 << 20


def test_the_spool_is_read_in_slices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that connects while ten thousand events are in the spool does not wait for all."""
    monkeypatch.setattr("schedhook.agent.inbox._SPOOL_SECONDS", 0.0)
    spool_events(tmp_path / "spool", 30)
    dispatcher = make_dispatcher(tmp_path, Moves())
    inbox = Inbox(dispatcher, dispatcher.journal, tmp_path / "spool")
    slices = 0
    while inbox.read_spool()[1]:
        slices += 1
    assert slices >= 29
    assert not list((tmp_path / "spool").iterdir())


def test_the_ends_of_many_jobs_make_the_agent_look_once() -> None:
    delayed = DelayedEvents()
    for number in range(100):
        look = event(EventKind.LOOK.value, "7", because=f"job {number} ended", repatriate=True)
        delayed.add(look, 1.0)
    delayed.add(event(EventKind.LOOK.value, "7"), 0.0)
    assert len(delayed) == 2
    assert delayed.next_due() == 0.0
    assert len(delayed.pop_due(1.0)) == 2
    delayed.add(event(EventKind.LOOK.value, "7"), 60.0)
    assert len(delayed) == 1, "an event that was handled may be added again"


def test_a_long_history_is_told(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    jobs = write_history(path, 2000)
    assert history_seconds(path) > 0
    with Journal.open(path) as journal:
        assert len(journal.history(limit=10_000)) == jobs
        (run,) = journal.history("77")
        assert [len(run[key]) for key in ("events", "placements", "reports")] == [4, 4, 1]
