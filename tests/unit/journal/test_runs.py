"""Record starts and ends of runs."""

from __future__ import annotations

from schedhook.journal.journal import Journal


def test_a_run_is_open_from_its_start_to_its_end(journal: Journal) -> None:
    journal.runs.record_start("slurm", "7", user=1000, at=10.0)
    run = journal.runs.latest("slurm", "7")
    assert run is not None
    assert (run.user, run.started, run.ended, run.hooked) == (1000, 10.0, None, True)
    assert [each.job for each in journal.runs.list_open()] == ["7"]
    assert journal.runs.record_end("slurm", "7", at=20.0)
    assert journal.runs.list_open() == ()


def test_starts_and_ends_may_be_recorded_twice(journal: Journal) -> None:
    for _ in range(2):
        journal.runs.record_start("slurm", "7", at=10.0)
    assert journal.runs.record_end("slurm", "7", at=20.0)
    assert not journal.runs.record_end("slurm", "7", at=20.0)
    assert len(journal.history("7")) == 1


def test_an_end_may_be_recorded_before_the_start(journal: Journal) -> None:
    journal.runs.record_end("slurm", "7", at=20.0)
    journal.runs.record_start("slurm", "7", user=1000, at=10.0)
    (run,) = journal.history("7")
    assert (run["user"], run["started"], run["ended"]) == (1000, 10.0, 20.0)


def test_a_requeued_job_has_another_run(journal: Journal) -> None:
    journal.runs.record_start("slurm", "7", at=10.0)
    journal.runs.record_end("slurm", "7", at=20.0)
    journal.runs.record_start("slurm", "7", at=30.0)
    journal.runs.record_end("slurm", "7", at=20.0)
    assert [(run["started"], run["ended"]) for run in journal.history("7")] == [
        (10.0, 20.0),
        (30.0, None),
    ]


def test_two_schedulers_may_use_one_job_number(journal: Journal) -> None:
    journal.runs.record_start("slurm", "7")
    journal.runs.record_start("pbs", "7")
    journal.runs.record_end("pbs", "7")
    assert [run.scheduler for run in journal.runs.list_open()] == ["slurm"]
