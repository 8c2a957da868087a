"""Write from several threads and processes, and through crashes."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from schedhook.journal.errors import JournalBusyError
from schedhook.journal.journal import Journal
from schedhook.values.model import PlacementOverride
from tests.unit.journal.kit import event, placed

SPAWN = multiprocessing.get_context("spawn")


def test_a_transaction_is_written_as_a_whole_or_not_at_all(journal: Journal, path: Path) -> None:
    override = PlacementOverride(was=placed("0", "0"), placement=placed("1", "1"))
    with pytest.raises(RuntimeError), journal.transaction():
        journal.overrides.set("slurm", "7", override)
        journal.placements.record("slurm", "7", {"0": placed("0", "0")})
        raise RuntimeError
    assert journal.history() == []
    with Journal.open(path) as other, journal.transaction():
        journal.overrides.set("slurm", "7", override)
        assert other.overrides.get("slurm", "7") is None
    assert journal.overrides.get("slurm", "7") is not None


def write_runs(path: Path, first: int, count: int) -> None:
    with Journal.open(path) as journal:
        for number in range(first, first + count):
            job = str(number)
            number_of_event = journal.events.put(event(job), float(number))
            assert number_of_event is not None
            journal.runs.record_start("slurm", job, at=float(number))
            journal.placements.record("slurm", job, {"0": placed("0", "0")}, at=float(number))
            journal.runs.record_end("slurm", job, at=float(number) + 0.5)
            journal.events.finish(number_of_event, "done")


def test_fifty_processes_that_open_a_new_journal_lose_nothing(path: Path) -> None:
    writers = [SPAWN.Process(target=write_runs, args=(path, n * 10, 4)) for n in range(50)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)
        assert writer.exitcode == 0
    with Journal.open(path) as journal:
        runs = journal.history()
        assert sorted(int(run["job"]) for run in runs) == [
            n * 10 + k for n in range(50) for k in range(4)
        ]
        assert all(run["ended"] is not None and len(run["placements"]) == 1 for run in runs)
        assert all(len(run["events"]) == 1 for run in runs)
        assert journal.events.list_unfinished() == []


def test_threads_share_one_journal(journal: Journal) -> None:
    def write(first: int) -> None:
        for number in range(first, first + 25):
            journal.runs.record_start("slurm", str(number))
            journal.placements.known_tasks("slurm", str(number))

    threads = [threading.Thread(target=write, args=(100 * n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(journal.runs.list_open()) == 200


def write_and_list(path: Path, job: str) -> list[str]:
    with Journal.open(path) as journal:
        journal.runs.record_start("slurm", job)
        return [run.job for run in journal.runs.list_open()]


def test_a_process_that_opens_it_twice_loses_nothing_to_another_one(path: Path) -> None:
    """`relocate --job` reads its scheduler's notes, and then records its report.

    A process that closes the journal as the last one deletes its log, with what others write there.
    """
    with Journal.open(path), Journal.open(path) as second, SPAWN.Pool(1) as other:
        assert other.apply(write_and_list, (path, "1")) == ["1"]
        second.runs.record_start("slurm", "2")
        assert other.apply(write_and_list, (path, "3")) == ["1", "2", "3"]


def test_a_reader_does_not_wait_for_a_writer(path: Path) -> None:
    with Journal.open(path) as journal, Journal.open(path) as other:
        journal.runs.record_start("slurm", "7")
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as writer:
            writer.execute("BEGIN IMMEDIATE")
            before = time.monotonic()
            assert other.runs.latest("slurm", "7") is not None
            assert time.monotonic() - before < 1


def test_a_reopened_journal_has_its_own_timeout(path: Path) -> None:
    with Journal.open(path) as journal, journal.reopen(0.0) as impatient:
        impatient.runs.record_start("slurm", "7")
        with journal.transaction(), pytest.raises(JournalBusyError, match="locked"):
            impatient.runs.record_start("slurm", "8")
        impatient.runs.record_start("slurm", "9")
        assert [run.job for run in journal.runs.list_open()] == ["7", "9"]
    with Journal.in_memory() as journal:
        assert journal.reopen(0.0) is journal
    with Journal.open(path) as journal:
        path.unlink()
        path.mkdir()
        assert journal.reopen(0.0) is journal


def test_after_one_timeout_later_writes_wait_for_less(path: Path) -> None:
    """A journal that stays locked for hours must not cost ten seconds at each write."""
    with Journal.open(path) as other, other.reopen(0.2) as journal:
        waits = lambda: journal.database.connection.execute("PRAGMA busy_timeout").fetchone()[0]  # noqa: E731
        with other.transaction(), pytest.raises(JournalBusyError):
            journal.runs.record_start("slurm", "7")
        assert waits() == 2
        journal.runs.record_start("slurm", "7")
        assert waits() == 200


WRITE_RUNS = """
import sys
from pathlib import Path
from typing import Any
from schedhook.journal.journal import Journal
journal = Journal.open(Path(sys.argv[1]))
number = 0
while True:
    number += 1
    journal.runs.record_start("slurm", str(number), at=float(number))
    journal.runs.record_end("slurm", str(number), at=float(number))
    print(number, flush=True)
"""


def test_what_was_committed_survives_sigkill(path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITE_RUNS, str(path)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line == "200\n":
            break
    process.send_signal(signal.SIGKILL)
    said = 200 + len(process.stdout.readlines())
    process.wait()
    with Journal.open(path) as journal:
        runs = journal.history(limit=10**6)
        assert said <= len(runs) <= said + 1
        assert all(run["ended"] is not None for run in runs[:said])
        journal.runs.record_start("slurm", "next")
