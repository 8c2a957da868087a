"""Notes about open runs: texts under keys that their writers define. They go when the run ends."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from schedhook.journal import columns
from schedhook.journal.database import Database
from schedhook.journal.runs import OPEN_RUN, JobRun, ensure_open_run, find_open_run, parse_run

_T = TypeVar("_T")


class Notes:
    """The table `notes`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def set(self, scheduler: str, job: str, key: str, text: str) -> None:
        """Store a text about the job's open run under `key`. A job without an open run gets one."""
        with self._database.write() as db:
            run = ensure_open_run(db, scheduler, job, time.time())
            db.execute("INSERT OR REPLACE INTO notes VALUES (?, ?, ?)", (run, key, text))

    def delete(self, scheduler: str, job: str, key: str) -> None:
        """Delete the note under `key`, if there is one."""
        with self._database.write() as db:
            run = find_open_run(db, scheduler, job)
            db.execute("DELETE FROM notes WHERE run = ? AND key = ?", (run, key))

    def get(self, scheduler: str, job: str, key: str, parse: Callable[[str], _T]) -> _T | None:
        """Return the parsed note about the job's open run, None if there is none.

        `parse` raises ValueError for a text that is damaged.
        """
        which = f"WHERE run = {OPEN_RUN} AND key = ?"
        with self._database.read():
            notes = self._database.rows.read(
                "notes",
                lambda row: parse(columns.text(row, "text")),
                which,
                (scheduler, job, key),
            )
        return notes[0] if notes else None

    def runs_with(self, key: str) -> tuple[JobRun, ...]:
        """Return the open runs that have a note under `key`."""
        which = "JOIN notes ON run = runs.id WHERE ended IS NULL AND key = ? ORDER BY runs.id"
        with self._database.read():
            return tuple(self._database.rows.read("runs", parse_run, which, (key,)))
