"""The journal: what was seen of each job on this host, and what was done about it.

It is an SQLite database, so that processes of many jobs can write at the same time and a crash
loses nothing that was committed. Times are seconds after the epoch. Every method of the journal and
of its tables raises JournalError, one line with a remedy, if the file cannot be opened, read or
written; a program that serves a hook logs it and goes on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schedhook.journal.counters import Counters
from schedhook.journal.database import Database
from schedhook.journal.errors import JournalError
from schedhook.journal.events import Events
from schedhook.journal.file import journal_path
from schedhook.journal.history import read_history
from schedhook.journal.locks import JobLocks
from schedhook.journal.notes import Notes
from schedhook.journal.overrides import Overrides
from schedhook.journal.placements import Placements
from schedhook.journal.prune import prune
from schedhook.journal.reports import Reports
from schedhook.journal.runs import Runs
from schedhook.values.config import Config
from schedhook.values.log import get_logger

_log = get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Numbers of rows."""

    open_runs: int
    unfinished_events: int
    damaged: int
    """Rows that were damaged and set aside."""


class Journal:
    """An open journal, for several threads but not across a fork."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.runs = Runs(database)
        self.placements = Placements(database)
        self.events = Events(database)
        self.reports = Reports(database)
        self.counters = Counters(database)
        self.overrides = Overrides(database)
        self.notes = Notes(database)
        self.locks = JobLocks(database)

    @classmethod
    def open(cls, path: Path, *, create: bool = True) -> Journal:
        """Open the journal at `path`; if there is none, create it unless `create` is false.

        A directory that is created gets mode 0700, the file 0600.
        """
        return cls(Database.open(path, create=create))

    @classmethod
    def in_memory(cls) -> Journal:
        """Return a journal without a file, which lasts as long as this process."""
        return cls(Database.in_memory())

    def reopen(self, timeout: float) -> Journal:
        """Open the same file again, for a thread that waits at most `timeout` seconds for writes.

        That includes the writes of this process's other threads. Close it before this one. Return
        this journal itself if it is in memory, or if the file cannot be opened again.
        """
        database = self.database.reopen(timeout)
        return Journal(database) if database else self

    def close(self) -> None:
        """Close the file. What was written stays."""
        self.database.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Write what the block writes as a whole, or not at all if it fails or the process dies.

        Other connections wait until it has ended, so the block must do nothing else.
        """
        with self.database.write():
            yield

    def counts(self) -> Counts:
        """Return how much there is to do, and how many rows were damaged. This changes nothing."""
        with self.database.read() as db:
            counts = db.execute(
                "SELECT (SELECT count(*) FROM runs WHERE ended IS NULL) AS open_runs,"
                " (SELECT count(*) FROM events WHERE done IS NULL) AS unfinished_events,"
                " (SELECT count(*) FROM damaged) AS damaged"
            ).fetchone()
            return Counts(**dict(counts))

    def history(
        self, job: str | None = None, limit: int = 1000, since: float | None = None
    ) -> list[dict[str, Any]]:
        """Return the latest runs as JSON objects; see `read_history`."""
        return read_history(self.database, job, limit, since)

    def prune(self, days: float, per_job: int | None = None) -> int:
        """Delete what is old or too much, and return how many runs went; see `prune.prune`."""
        return prune(self.database, days, per_job)


def open_journal(config: Config) -> Journal:
    """Open the configured journal; if that fails, log why and return one in memory."""
    try:
        return Journal.open(journal_path(config))
    except JournalError as error:
        _log.error("no journal; keeping one in memory", problem=str(error))
        return Journal.in_memory()
