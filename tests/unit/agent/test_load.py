"""The load of benchmarks/load.py, on a smaller scale."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.load import history_seconds, measure, spool_events, write_history
from schedhook.agent.inbox import Inbox
from schedhook.journal.journal import Journal
from tests.unit.agentkit import Moves, make_dispatcher


def test_a_busy_host_loses_no_event_and_handles_none_twice(tmp_path: Path) -> None:
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


def test_a_long_history_is_read(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    jobs = write_history(path, 2000)
    assert history_seconds(path) > 0
    with Journal.open(path) as journal:
        assert len(journal.history(limit=10_000)) == jobs
        (run,) = journal.history("77")
        assert [len(run[key]) for key in ("events", "placements", "reports")] == [4, 4, 1]
