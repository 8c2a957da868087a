"""Routing: start and end of jobs, events of all jobs, observers, and whatever goes wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from schedhook.journal.errors import JournalError
from schedhook.journal.locks import JobLocks
from schedhook.journal.notes import Notes
from schedhook.journal.overrides import Overrides
from schedhook.journal.placements import Placements
from schedhook.journal.reports import Reports
from schedhook.journal.runs import Runs
from schedhook.plugins.hookspecs import hookimpl
from schedhook.roles.scheduler import Task
from schedhook.values.errors import SchedhookError
from schedhook.values.model import (
    Event,
    Outcome,
)
from tests.unit.agent.one_job import OneJob
from tests.unit.agentkit import (
    FakeScheduler,
    event,
)


def test_what_could_not_go_is_tried_when_another_job_ends(one: OneJob) -> None:
    one.moves.outcome = Outcome.REFUSED
    one.put("2", "1")
    one.look()
    one.dispatcher.handle(event("begin", "2"), 4.0)
    handled = one.dispatcher.handle(event("end", "2"), 5.0)
    assert [(each.job, each.point) for each in handled.more] == [("1", "look")]


def test_an_end_causes_no_look_at_a_job_that_is_in_place(one: OneJob) -> None:
    one.dispatcher.handle(event("begin", "2"), 4.0)
    assert one.dispatcher.handle(event("end", "2"), 5.0).more == ()


def test_an_event_without_a_job_looks_at_every_job(one: OneJob) -> None:
    one.put("0", job="2")
    handled = one.dispatcher.handle(event("periodic", ""), 3.0)
    assert sorted(each.job for each in handled.more) == ["1", "2"]


def test_what_comes_after_a_jobs_end_does_not_open_it_again(one: OneJob) -> None:
    one.look("end")
    one.put("2", "3")
    assert one.look() == "the job has ended"
    assert one.moves.requests == []
    assert len(one.journal.history()) == 1


class Observer:
    def __init__(self) -> None:
        self.seen: list[str] = []

    @hookimpl
    def schedhook_event(self, event: Event) -> None:
        self.seen.append(f"event {event.point}")

    @hookimpl
    def schedhook_job_started(self, event: Event) -> None:
        self.seen.append(f"started {event.job}")

    @hookimpl
    def schedhook_job_ended(self, event: Event) -> None:
        self.seen.append(f"ended {event.job}")
        raise RuntimeError("a bad observer")


def test_observers_see_events_and_their_failures_do_no_harm(tmp_path: Path) -> None:
    observer = Observer()
    one = OneJob(tmp_path, None, observer)
    assert one.look("end") == "ended"
    assert observer.seen == ["event begin", "started 1", "event end", "ended 1"]


def broken(*_: object, **__: object) -> None:
    raise JournalError("the disk is full")


def test_without_a_journal_memory_follows_all_the_same(
    one: OneJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    for table, name in (
        (one.journal.runs, "record_start"),
        (one.journal.runs, "record_end"),
        (one.journal.placements, "record"),
        (one.journal.reports, "add"),
        (one.journal.notes, "set"),
        (one.journal.notes, "delete"),
        (one.journal.events, "put"),
    ):
        monkeypatch.setattr(table, name, broken)
    one.put("2", "3")
    one.look()
    one.put("4", "5")
    one.look()
    one.look()
    assert one.moves.pairs == [{0: 2}, {1: 3}, {2: 4}, {3: 5}]
    assert one.dispatcher.handle(event("end"), 4.0).ok


def test_with_a_journal_that_cannot_even_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for table, name in (
        (Runs, "record_start"),
        (Runs, "list_open"),
        (Placements, "record"),
        (Placements, "known_tasks"),
        (Overrides, "get"),
        (Notes, "get"),
        (JobLocks, "acquire"),
        (Reports, "add"),
    ):
        monkeypatch.setattr(table, name, broken)
    one = OneJob(tmp_path)
    one.put("2", "3")
    one.look()
    assert one.moves.pairs == [{0: 2}, {1: 3}]


@pytest.mark.parametrize("error", [SchedhookError("no"), RuntimeError("bug"), OSError(5, "io")])
def test_a_broken_adapter_is_a_result_and_no_exception(
    one: OneJob, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(_self: object, _job: str) -> tuple[Task, ...]:
        raise error

    monkeypatch.setattr(FakeScheduler, "tasks", fail)
    handled = one.dispatcher.handle(event("look"), 3.0)
    assert not handled.ok
    assert handled.summary.startswith("failed: ")


def test_an_unknown_scheduler_is_a_result(one: OneJob) -> None:
    handled = one.dispatcher.handle(Event(scheduler="none", point="begin", job="1"), 1.0)
    assert "no scheduler is called 'none'" in handled.summary


def test_a_job_that_the_watcher_lost_is_closed_only_if_no_hook_will_report_its_end(
    one: OneJob,
) -> None:
    one.look("job-ended", seen_by="watch")
    assert [run.job for run in one.journal.runs.list_open()] == ["1"]
    one.dispatcher.handle(event("job-started", "2", seen_by="watch"), 1.0)
    one.dispatcher.handle(event("job-ended", "2", seen_by="watch"), 2.0)
    assert [run.job for run in one.journal.runs.list_open()] == ["1"]
    run = one.journal.runs.latest("fake", "2")
    assert run is not None
    assert run.ended == 2.0
