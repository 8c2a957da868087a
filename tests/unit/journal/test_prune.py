"""Delete what is old or too much."""

from __future__ import annotations

import time

from schedhook.journal.journal import Journal
from schedhook.values.model import Event, Placement
from schedhook.values.sets import CpuSet, NodeSet
from tests.unit.journal.kit import event


def test_old_runs_that_ended_are_deleted(journal: Journal) -> None:
    old = time.time() - 10 * 86400
    journal.runs.record_start("slurm", "1", at=old)
    journal.runs.record_end("slurm", "1", at=old + 1)
    journal.runs.record_start("slurm", "2", at=old)
    journal.events.finish(journal.events.put(event("1"), old) or 0, "")
    assert journal.prune(5) == 1
    assert [run["job"] for run in journal.history()] == ["2"]


def test_only_the_newest_rows_of_a_job_are_kept(journal: Journal) -> None:
    now = time.time()
    for number in range(60):
        at = now - 60 + number
        journal.events.finish(
            journal.events.put(Event(scheduler="s", point="look", job="1"), at) or 0, ""
        )
        nodes = NodeSet([number % 2])
        journal.placements.record(
            "s", "1", {"a": Placement(cpus=CpuSet([number]), nodes=nodes)}, at=at
        )
    journal.placements.record(
        "s", "1", {"quiet": Placement(cpus=CpuSet([7]), nodes=NodeSet([3]))}, at=now - 90
    )
    waiting = journal.events.put(Event(scheduler="s", point="prolog", job="1"), now - 99)
    before = journal.placements.known_tasks("s", "1")
    journal.prune(90, per_job=10)
    (run,) = journal.history("1")
    assert [number for number, _, _ in journal.events.list_unfinished()] == [waiting]
    assert journal.placements.known_tasks("s", "1") == before
    assert len([seen for seen in run["placements"] if seen["task"] == "a"]) == 10
    assert len([seen for seen in run["placements"] if seen["task"] == "quiet"]) == 1


def test_the_home_of_a_task_that_is_away_is_kept(journal: Journal) -> None:
    journal.placements.record("s", "1", {"a": Placement(cpus=CpuSet([0]), nodes=NodeSet([0]))})
    for number in range(30):
        place = Placement(cpus=CpuSet([number]), nodes=NodeSet([1 + number % 3]))
        journal.placements.record("s", "1", {"a": place}, settled=False)
    before = journal.placements.known_tasks("s", "1")
    journal.prune(90, per_job=10)
    assert journal.placements.known_tasks("s", "1") == before
    assert str(before["a"].visited) == "1-3"
