"""Owners of jobs: as hooks reported them, else as the processes show."""

from __future__ import annotations

from pathlib import Path

import pytest

from schedhook.agent.owners import JobOwners
from schedhook.journal.journal import Journal
from tests.unit.agentkit import FakeScheduler


def test_the_owner_that_roots_hooks_reported_comes_first(tmp_path: Path) -> None:
    with Journal.in_memory() as journal:
        journal.runs.record_start("fake", "hooked", 1000)
        journal.runs.record_start("fake", "watched", 1000, hooked=False)
        owners = JobOwners(journal)
        assert owners.owner(FakeScheduler(tmp_path), "hooked") == 1000
        assert owners.owner(FakeScheduler(tmp_path), "watched") is None


def test_an_owner_read_from_processes_is_believed_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("schedhook.agent.owners.time.monotonic", lambda: now)
    asked: list[str] = []
    monkeypatch.setattr(FakeScheduler, "owner", lambda _, job: asked.append(job) or 1000)
    with Journal.in_memory() as journal:
        owners, adapter = JobOwners(journal), FakeScheduler(tmp_path)
        for _ in range(3):
            assert owners.owner(adapter, "7") == 1000
        assert asked == ["7"]
        now += 11
        owners.owner(adapter, "7")
        assert asked == ["7", "7"]


def test_not_more_owners_are_remembered_than_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("schedhook.agent.owners._MAX_CACHED", 2)
    asked: list[str] = []
    monkeypatch.setattr(FakeScheduler, "owner", lambda _, job: asked.append(job) or 1000)
    with Journal.in_memory() as journal:
        owners, adapter = JobOwners(journal), FakeScheduler(tmp_path)
        for job in ("1", "2", "1", "2", "3", "3", "1"):
            assert owners.owner(adapter, job) == 1000
    assert asked == ["1", "2", "3", "1"]
