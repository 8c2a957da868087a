"""Notes of schedulers' adapters in the journal, also while it fails."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from schedhook.jobs.notes import JournalNotes, open_notes
from schedhook.journal.errors import JournalError
from schedhook.journal.journal import Journal
from schedhook.journal.notes import Notes


@pytest.fixture
def journal() -> Iterator[Journal]:
    with Journal.in_memory() as journal:
        yield journal


def test_a_note_is_its_schedulers_and_ends_with_the_job(journal: Journal) -> None:
    notes, others = JournalNotes(journal, "pbs"), JournalNotes(journal, "slurm")
    notes.set("1", "k", "text")
    assert (notes.get("1", "k"), others.get("1", "k")) == ("text", None)
    assert (notes.jobs("k"), others.jobs("k"), notes.jobs("other")) == (("1",), (), ())
    journal.runs.record_end("pbs", "1")
    assert (notes.get("1", "k"), notes.jobs("k")) == (None, ())


def test_a_job_that_has_ended_gets_no_note(journal: Journal) -> None:
    notes = JournalNotes(journal, "pbs")
    journal.runs.record_start("pbs", "1")
    journal.runs.record_end("pbs", "1")
    notes.set("1", "k", "late")
    assert notes.get("1", "k") is None
    assert journal.runs.list_open() == ()


def test_notes_are_kept_in_memory_while_the_journal_fails(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise JournalError("the disk is full")

    notes = JournalNotes(journal, "pbs")
    notes.set("1", "k", "old")
    with monkeypatch.context() as broken:
        for name in ("get", "set", "runs_with"):
            broken.setattr(Notes, name, fail)
        for _ in range(3):
            notes.set("1", "k", "new")
            assert (notes.get("1", "k"), notes.get("2", "k")) == ("new", None)
        assert notes.jobs("k") == ("1",)
    assert capsys.readouterr().err.count("the disk is full") == 1
    assert notes.get("1", "k") == "new"
    notes.set("1", "k", "newer")
    assert JournalNotes(journal, "pbs").get("1", "k") == "newer"


def test_notes_of_a_journal_that_another_process_writes(tmp_path: Path) -> None:
    path = tmp_path / "journal" / "journal.db"
    assert open_notes(path, "pbs").get("1", "k") is None
    assert not path.exists(), "a command that only reads makes no journal"
    with Journal.open(path) as journal:
        JournalNotes(journal, "pbs").set("1", "k", "text")
    assert open_notes(path, "pbs").get("1", "k") == "text"
