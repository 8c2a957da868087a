"""Truncate files as a power cut may.

The journal has what was committed before, or its error names a remedy; a truncated message is
never read as another one.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing, suppress
from pathlib import Path

import pytest

from schedhook.hook import delivery
from schedhook.journal.errors import JournalError
from schedhook.journal.journal import Journal, open_journal
from schedhook.values.config import Config, JournalSection
from schedhook.values.model import Event
from tests.unit.agentkit import agent, history, wait_for

FRAME, PAGE, WAL_HEAD = 24, 4096, 32
"""Bytes; see sqlite.org/fileformat2.html."""


@pytest.fixture
def written(tmp_path: Path) -> tuple[bytes, bytes, list[int]]:
    """Return a journal, its log with four events, and the log's length after each event."""
    path = tmp_path / "state" / "journal.db"
    Journal.open(path).close()
    log, ends = path.with_name("journal.db-wal"), []
    with Journal.open(path) as journal:
        for number in range(4):
            journal.events.put(Event(scheduler="s", point="begin", job=str(number)), float(number))
            ends.append(log.stat().st_size)
        return path.read_bytes(), log.read_bytes(), ends


def open_cut(directory: Path, file: bytes, log: bytes) -> Path:
    directory.mkdir(mode=0o700, exist_ok=True)
    path = directory / "journal.db"
    path.write_bytes(file)
    path.with_name("journal.db-wal").write_bytes(log)
    return path


def test_a_truncated_log_has_what_was_committed_before(
    tmp_path: Path, written: tuple[bytes, bytes, list[int]]
) -> None:
    file, log, ends = written
    cuts = set(range(0, len(log) + 1, 509))
    for frame in range(WAL_HEAD, len(log), FRAME + PAGE):
        cuts |= set(range(frame - 1, frame + FRAME + 1))
    cuts |= set(range(WAL_HEAD)) | set(ends)
    for end in sorted(cuts):
        path = open_cut(tmp_path / "cut", file, log[:end])
        with Journal.open(path) as journal:
            found = [event.job for _, _, event in journal.events.list_unfinished()]
            assert found == [str(n) for n in range(4) if ends[n] <= end], end
            journal.runs.record_start("s", "next")
        with closing(sqlite3.connect(path)) as other:
            assert other.execute("PRAGMA integrity_check").fetchall() == [("ok",)], end
    print(f"{len(cuts)} cuts")


def test_a_truncated_file_opens_or_is_an_error_with_a_remedy(
    tmp_path: Path, written: tuple[bytes, bytes, list[int]]
) -> None:
    file, refused, damaged = written[0], 0, 0
    cuts = {*range(0, 120), *range(0, len(file), 511)}
    for end in sorted(cuts):
        path = open_cut(tmp_path / "cut", file[:end], b"")
        try:
            with Journal.open(path) as journal, suppress(JournalError):
                damaged += 1
                journal.runs.record_start("s", "7")
                journal.events.put(Event(scheduler="s", point="begin", job="7"), 1.0)
                damaged -= 1
        except JournalError as error:
            refused += 1
            assert "move it away" in str(error), error
        # The agent goes on with such a file.
        with open_journal(Config(journal=JournalSection(path=str(path)))) as journal:
            assert journal.database.path in (None, path)
    print(f"{len(cuts)} cuts, {refused} refused at once, {damaged} when it was written")
    assert 0 < refused < len(cuts)


def test_a_truncated_spool_file_is_dropped(here: Path) -> None:
    """A disk may report data as written that a power cut then loses, so try every length."""
    environ = {b"SLURM_JOB_ID": b"71", b"SLURM_JOB_UID": b"1000"}
    whole = delivery.make_message("slurm", "prolog", environ, b"", False)
    told = delivery.make_message("pbs", "begin", {}, b'{"job": {"id": "71.n1"}}', False)
    (here / "spool").mkdir(mode=0o700)
    count = 0
    for raw in (whole, told):
        for end in range(len(raw)):
            (here / "spool" / f"{count:04}.event").write_bytes(raw[:end])
            count += 1
    (here / "spool" / f"{count:04}.event").write_bytes(
        delivery.make_message("fake", "begin", {b"FAKE_JOB": b"7"}, b"", False)
    )
    with agent(here):
        wait_for(lambda: not list((here / "spool").iterdir()))
        wait_for(lambda: history(here))
    assert [run["job"] for run in history(here)] == ["7"]
    dropped = (here / "agent.log").read_text().count("spooled event dropped")
    print(f"{count} cuts, {dropped} files dropped with a line in the log")
    assert dropped == count
