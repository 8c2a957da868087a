"""Read what `history --json` prints."""

from __future__ import annotations

import time

from schedhook.journal.journal import Journal
from schedhook.values.model import NodeMap, Outcome, Report
from tests.unit.journal.kit import event, placed


def test_history_has_all_of_a_job_and_nothing_of_other_jobs(journal: Journal) -> None:
    for job in ("7", "8"):
        now = time.time()
        journal.runs.record_start("slurm", job, at=now)
        journal.events.finish(journal.events.put(event(job), now) or 0, "started")
        journal.placements.record("slurm", job, {"0": placed("0", "0")})
        report = Report(
            outcome=Outcome.COMPLETE,
            strategy="s",
            backend="b",
            node_map=NodeMap(pairs={0: 2}),
            job=job,
            bytes_moved=42,
        )
        journal.reports.add(report, "slurm")
    (run,) = journal.history("8")
    assert run["events"][0]["summary"] == "started"
    assert run["placements"][0]["cpus"] == "0"
    assert [each["bytes_moved"] for each in run["reports"]] == [42]
    assert [run["job"] for run in journal.history()] == ["7", "8"]
    assert [run["job"] for run in journal.history(limit=1)] == ["8"]


def test_a_job_of_pbs_is_named_without_its_server(journal: Journal) -> None:
    for job in ("0[2].server.example.org", "0[20].server.example.org", "0.server.example.org"):
        journal.runs.record_start("pbs", job)
    for text in ("0", "0[2]", "0[2].server.example.org"):
        (run,) = journal.history(text)
        assert run["job"].startswith(f"{text}.") or run["job"] == text
    assert journal.runs.members_of("0[2]") == ()
