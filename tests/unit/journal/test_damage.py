"""Set damaged rows aside."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from schedhook.journal.journal import Journal
from schedhook.values.model import Event, NodeMap, Outcome, PlacementOverride, Report
from tests.unit.journal.kit import event, placed


def damage(path: Path, table: str, change: str, number: int | None = None) -> int:
    """Change the row of that number, by default the first one; return its number."""
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        if number is None:
            (number,) = database.execute(f"SELECT min(rowid) FROM {table}").fetchone()
        database.execute(f"UPDATE {table} SET {change} WHERE rowid = {number}")
        return number


def fill(journal: Journal, job: str) -> None:
    """Write to every table about one running job."""
    journal.runs.record_start("slurm", job, user=1000, at=10.0)
    journal.placements.record("slurm", job, {"0": placed("1", "0")}, at=11.0)
    journal.events.put(Event(scheduler="slurm", point="prolog", job=job), 12.0)
    journal.overrides.set(
        "slurm", job, PlacementOverride(was=placed("0", "0"), placement=placed("1", "0"), at=13.0)
    )
    journal.notes.set("slurm", job, "parked", "{}")
    report = Report(
        outcome=Outcome.COMPLETE, strategy=job, backend="b", node_map=NodeMap(pairs={0: 1}), job=job
    )
    journal.reports.add(report, "slurm")


def read_all(journal: Journal) -> dict[str, Any]:
    """Return what each method reads about jobs 7 and 8."""
    return {
        "runs": [
            (run.job, journal.runs.latest("slurm", run.job)) for run in journal.runs.list_open()
        ],
        "seen": [journal.placements.known_tasks("slurm", job) for job in ("7", "8")],
        "overrides": [journal.overrides.get("slurm", job) for job in ("7", "8")],
        "notes": [journal.notes.get("slurm", job, "parked", json.loads) for job in ("7", "8")],
        "with_notes": [run.job for run in journal.notes.runs_with("parked")],
        "events": [event.job for _, _, event in journal.events.list_unfinished()],
        "counters": len(journal.counters.read()),
        "history": {
            run["job"]: [len(run[key] or ()) for key in ("placements", "reports", "override")]
            for run in journal.history()
        },
    }


INVALID_UTF8 = "CAST(x'37ff' AS TEXT)"
DEEP = "[" * 100_000
DAMAGE = [
    *(("events", f"data = {value}") for value in ("'{'", "'[]'", "'7'", f"'{DEEP}'", INVALID_UTF8)),
    ("events", "data = x'7b7d'"),
    ("events", "at = 'noon'"),
    ("events", "at = 1e300"),
    ("events", "at = 9e999"),
    ("events", "user = 'root'"),
    ("events", f"host = {INVALID_UTF8}"),
    *(
        ("placements", f"cpus = {value}")
        for value in ("'1-'", "x'31'", "'0-99999999999'", INVALID_UTF8)
    ),
    ("placements", "nodes = 'x'"),
    ("placements", "settled = 'yes'"),
    ("overrides", "data = '[1]'"),
    ("overrides", "data = '{\"leaving\": 5.5}'"),
    ("overrides", "was_cpus = '7-1'"),
    ("overrides", "at = ''"),
    ("notes", "text = '{'"),
    ("notes", f"text = {INVALID_UTF8}"),
    *(
        ("reports", f"report = {value}")
        for value in ("'{'", "'{}'", "'[]'", f"'{DEEP}'", INVALID_UTF8)
    ),
    ("reports", "report = replace(report, 'bytes_moved', 'bytes_mo')"),
    ("counters", "series = '{}'"),
    ("counters", "series = '['"),
    ("counters", "value = 'much'"),
    ("runs", "user = 'root'"),
    ("runs", "hooked = x'01'"),
    ("runs", "started = 'never'"),
]


@pytest.mark.parametrize(("table", "change"), DAMAGE, ids=lambda text: text[:40])
def test_a_damaged_row_costs_only_its_own_content(
    path: Path, capsys: pytest.CaptureFixture[str], table: str, change: str
) -> None:
    with Journal.open(path) as journal:
        for job in ("7", "8"):
            fill(journal, job)
        whole = read_all(journal)
        number = damage(path, table, change)
        left = read_all(journal)
        lines = capsys.readouterr().err.splitlines()
        assert [json.loads(line)["row"] for line in lines] == [f"{table} {number}"]
        assert "set aside" in lines[0]
        assert read_all(journal) == left
        assert journal.counts().damaged == 1
    with Journal.open(path) as journal:
        assert read_all(journal) == left
        assert not capsys.readouterr().err
    differs = {key for key in whole if whole[key] != left[key]}
    expected = {
        "events": {"events"},
        "placements": {"seen", "history"},
        "overrides": {"overrides", "history"},
        "notes": {"notes", "with_notes"},
        "reports": {"history"},
        "counters": {"counters"},
        "runs": {"runs"},
    }
    assert differs == expected[table]


def rows_set_aside(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """Return the table and the content of each row that was set aside."""
    with contextlib.closing(sqlite3.connect(path)) as database:
        found = database.execute("SELECT origin, content FROM damaged ORDER BY id").fetchall()
    return [(table, json.loads(content)) for table, content in found]


@pytest.mark.parametrize("change", ["ended = 'soon'", f"scheduler = {INVALID_UTF8}"])
def test_what_belongs_to_a_run_that_cannot_be_repaired_is_set_aside_too(
    journal: Journal, path: Path, change: str
) -> None:
    for job in ("7", "8"):
        fill(journal, job)
    damage(path, "runs", change)
    assert [run["job"] for run in journal.history()] == ["8"]
    aside = rows_set_aside(path)
    assert [table for table, _ in aside] == ["runs", "placements", "overrides", "notes"]
    assert (aside[0][1]["job"], aside[1][1]["cpus"]) == ("7", "1")
    journal.runs.record_start("slurm", "7", at=20.0)
    assert [run.job for run in journal.runs.list_open()] == ["8", "7"]
    assert journal.placements.known_tasks("slurm", "7") == {}


def test_a_run_with_a_damaged_start_is_repaired(journal: Journal, path: Path) -> None:
    fill(journal, "7")
    damage(path, "runs", "started = ''")
    journal.runs.record_start("slurm", "7", user=1000)
    assert journal.runs.record_end("slurm", "7", at=time.time() + 1)
    (run,) = journal.history("7")
    assert run["user"] == 1000


@pytest.mark.parametrize("change", ["pid = 'x' || char(0)", "start_time = 'early'"])
def test_a_damaged_lock_excludes_no_process(journal: Journal, path: Path, change: str) -> None:
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        far = time.time() + 999
        database.execute("INSERT INTO locks VALUES ('slurm', '7', 1, 1, ?)", (far,))
    damage(path, "locks", change)
    with journal.locks.acquire("slurm", "7"):
        assert journal.counts().damaged == 1


def test_an_event_with_a_damaged_result_may_be_stored_again(journal: Journal, path: Path) -> None:
    number = journal.events.put(event(), 5.0)
    assert number is not None
    journal.events.finish(number, "started")
    damage(path, "events", "summary = x'00'")
    assert journal.events.find(event(), 5.0) is None
    assert journal.events.put(event(), 5.0) is not None


def test_a_damaged_row_is_left_out_while_the_journal_is_locked(
    journal: Journal, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for job in ("7", "8"):
        journal.events.put(event(job), 5.0)
    damage(path, "events", "data = '{'")
    impatient = journal.reopen(0.05)
    with contextlib.closing(sqlite3.connect(path)) as other, contextlib.closing(impatient):
        other.execute("BEGIN IMMEDIATE")
        assert [found.job for _, _, found in impatient.events.list_unfinished()] == ["8"]
        line = json.loads(capsys.readouterr().err)
        assert line["event"] == "damaged row left out"
        assert "locked" in line["not_set_aside"]
        other.execute("ROLLBACK")
    assert [found.job for _, _, found in journal.events.list_unfinished()] == ["8"]
    assert [row["job"] for _, row in rows_set_aside(path)] == ["7"]


def test_rows_set_aside_are_pruned(journal: Journal, path: Path) -> None:
    journal.events.put(event(), 5.0)
    damage(path, "events", "data = ''")
    assert journal.events.list_unfinished() == []
    journal.prune(1)
    assert journal.counts().damaged == 1
    damage(path, "damaged", "at = 5.0")
    journal.prune(1)
    assert journal.counts().damaged == 0
