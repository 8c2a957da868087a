"""Notes of schedulers' adapters, kept in the journal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from schedhook.journal.errors import JournalError
from schedhook.journal.journal import Journal
from schedhook.roles.notes import JobNotes, MemoryNotes
from schedhook.values.log import get_logger

_log = get_logger()


class JournalNotes:
    """Notes about one scheduler's jobs; while the journal fails they are kept in memory."""

    def __init__(self, journal: Journal, scheduler: str) -> None:
        self._journal = journal
        self._scheduler = scheduler
        self._unsaved = MemoryNotes()
        self._failing = False

    def get(self, job: str, key: str) -> str | None:
        """Return the text about the job under `key`, None if there is none."""
        if (unsaved := self._unsaved.get(job, key)) is not None:
            return unsaved
        try:
            return self._journal.notes.get(self._scheduler, job, key, str)
        except JournalError as error:
            self._log_once(error)
            return None

    def set(self, job: str, key: str, text: str) -> None:
        """Keep `text` under `key` in place of the earlier one; a job that has ended gets none."""
        try:
            with self._journal.transaction():
                run = self._journal.runs.latest(self._scheduler, job)
                if run is None or run.ended is None:
                    self._journal.notes.set(self._scheduler, job, key, text)
        except JournalError as error:
            self._log_once(error)
            self._unsaved.set(job, key, text)
        else:
            self._failing = False
            self._unsaved.discard(job, key)

    def jobs(self, key: str) -> tuple[str, ...]:
        """Return the jobs that have a text under `key`."""
        unsaved = self._unsaved.jobs(key)
        try:
            runs = self._journal.notes.runs_with(key)
        except JournalError as error:
            self._log_once(error)
            return unsaved
        saved = (run.job for run in runs if run.scheduler == self._scheduler)
        return tuple(dict.fromkeys((*saved, *unsaved)))

    def _log_once(self, error: JournalError) -> None:
        if not self._failing:  # the watcher asks every second
            self._failing = True
            _log.error("notes about jobs not in the journal", problem=str(error))


def journal_notes(journal: Journal) -> Callable[[str], JobNotes]:
    """Return what makes a scheduler's notes out of its name, kept in an open journal."""
    return lambda scheduler: JournalNotes(journal, scheduler)


def open_notes(path: Path, scheduler: str) -> JobNotes:
    """Return the notes in the journal at `path`; none if it cannot be opened."""
    try:
        return JournalNotes(Journal.open(path, create=False), scheduler)
    except JournalError as error:
        _log.debug("no notes about jobs", problem=str(error))
        return MemoryNotes()
