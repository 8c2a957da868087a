"""What job-migrate records in the journal before a move, after it, and if the move fails."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from schedhook.journal.journal import Journal
from schedhook.roles.scheduler import Task
from schedhook.values.model import PlacementOverride
from schedhook_plugins.schedulers.slurm.adapter import HostJobs
from schedhook_plugins.schedulers.slurm.migrate import JobMove
from schedhook_plugins.schedulers.slurm.override import (
    OverrideRecorder,
    finish_interrupted,
    locked,
)
from tests.unit.agentkit import homes
from tests.unit.schedhook_plugins.schedulers.slurm.job_host import JobHost, cpus, place


def task(text: str) -> tuple[Task, ...]:
    return (Task(name="0.0", pids=(1,), placement=place(text)),)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal.open(tmp_path / "journal.db") as journal:
        yield journal


@pytest.fixture
def recorder(journal: Journal, tmp_path: Path) -> OverrideRecorder:
    return OverrideRecorder(journal, HostJobs(tmp_path), "7")


def move(failure: str | None = None) -> JobMove:
    return JobMove(
        job="7", old=place("0"), new=place("2"), failure=failure, before=task("0"), after=task("2")
    )


def test_an_override_tells_what_the_job_leaves_until_it_has_arrived(
    journal: Journal, recorder: OverrideRecorder
) -> None:
    recorder.begin(move())
    override = journal.overrides.get("slurm", "7")
    assert override is not None
    assert (override.placement, override.leaving) == (place("2"), cpus("0"))
    assert homes(journal, "slurm", "7") == {"0.0": place("0")}
    assert recorder.end(move()) == []
    override = journal.overrides.get("slurm", "7")
    assert override is not None
    assert (override.was, override.placement, override.leaving) == (place("0"), place("2"), None)
    assert homes(journal, "slurm", "7") == {"0.0": place("2")}


@pytest.mark.parametrize("earlier", [None, PlacementOverride(was=place("1"), placement=place("0"))])
def test_a_failed_move_leaves_the_earlier_override(
    journal: Journal, recorder: OverrideRecorder, earlier: PlacementOverride | None
) -> None:
    if earlier:
        journal.overrides.set("slurm", "7", earlier)
    recorder.begin(move())
    recorder.end(move("no room"))
    found = journal.overrides.get("slurm", "7")
    assert (found and (found.was, found.placement, found.leaving)) == (
        earlier and (earlier.was, earlier.placement, None)
    )


def test_a_failing_journal_is_reported_and_stops_nothing(
    journal: Journal, recorder: OverrideRecorder
) -> None:
    journal.close()
    with locked(journal, "7"):
        recorder.begin(move())
    (note,) = recorder.end(move())
    assert note.startswith("override not recorded (")
    assert note.endswith("Slurm's next step in the job will undo the move")
    (note,) = finish_interrupted(journal, "7", HostJobs(), lambda _: pytest.fail("moved"))
    assert note.startswith("cannot tell whether an earlier relocation was interrupted")


def test_without_a_journal_the_job_is_moved_all_the_same(tmp_path: Path) -> None:
    recorder = OverrideRecorder(None, HostJobs(tmp_path), "7")
    with locked(None, "7"):
        assert finish_interrupted(None, "7", HostJobs(tmp_path), pytest.fail) == []
        recorder.begin(move())
    (note,) = recorder.end(move())
    assert "no journal is open" in note


def test_an_interrupted_move_is_finished_and_recorded(journal: Journal, job_host: JobHost) -> None:
    job_host.cpuset("slurm/uid_2001", "0-3")
    override = PlacementOverride(was=place("0-1"), placement=place("2-3"), leaving=cpus("0-1"))
    journal.placements.record("slurm", "7", {"0.0": place("0"), "0.1": place("1")})
    journal.overrides.set("slurm", "7", override)
    (note,) = finish_interrupted(journal, "7", job_host.here, job_host.relocate)
    assert note.startswith(
        "finished an earlier relocation that was interrupted: override reapplied"
    )
    finished = journal.overrides.get("slurm", "7")
    assert finished is not None
    assert not finished.under_way
    assert homes(journal, "slurm", "7") == {"0.0": place("2"), "0.1": place("3")}
    assert finish_interrupted(journal, "7", job_host.here, pytest.fail) == []
