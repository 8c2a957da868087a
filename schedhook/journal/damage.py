"""Rows of the journal that nobody can understand: each costs what it said, and nothing else.

A bad disk, bad memory or a stranger's program may have changed them. Such a row is moved to the
table `damaged`, with what it held and what is wrong with it, so that it is met once; one line of
the log names it.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TypeVar

from schedhook.journal.file import JournalError
from schedhook.values.log import get_logger

_log = get_logger()

_T = TypeVar("_T")

Read = Callable[[sqlite3.Row], _T]
"""What a row says. ValueError, which tells what is wrong, for a damaged one."""

_OF_RUN = ("placements", "overrides", "notes")
"""Tables whose rows go with their row of `jobs`."""


class Rows:
    """Reads rows of the journal. `write`: its transaction, for what has to be set aside."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        write: Callable[[], AbstractContextManager[sqlite3.Connection]],
    ) -> None:
        self._db = connection
        self._write = write

    def read(
        self, table: str, read: Read[_T], which: str = "", values: Sequence[object] = ()
    ) -> list[_T]:
        """What those rows of the table say that `which`, the rest of a query, chooses. A row's
        number is its column `number`. Damaged ones are set aside, and only left out where the
        journal cannot be written."""
        rows = self._db.execute(
            f"SELECT {table}.rowid AS number, {table}.* FROM {table} {which}", values
        ).fetchall()
        result: list[_T] = []
        for row in rows:
            said, problem = _try(read, row)
            result += self._set_aside(table, read, row["number"], problem) if problem else said
        return result

    def _set_aside(self, table: str, read: Read[_T], number: int, problem: str) -> list[_T]:
        row = f"{table} {number}"
        try:
            with self._write() as db:
                said = _move(db, table, read, number)
        except JournalError as error:
            _log.error("damaged row left out", row=row, problem=problem, not_set_aside=str(error))
            return []
        _log.error("damaged row set aside", row=row, problem=problem)
        return said


def _try(read: Read[_T], row: sqlite3.Row) -> tuple[list[_T], str]:
    """What the row says, or what is wrong with it."""
    try:
        return [read(row)], ""
    except ValueError as error:
        return [], str(error) or type(error).__name__


def _move(db: sqlite3.Connection, table: str, read: Read[_T], number: int) -> list[_T]:
    """What the row says after all: mended, or written anew by another process meanwhile."""
    row = _row(db, table, number)
    if row is None:
        return []
    said, problem = _try(read, row)
    if not problem:
        return said
    _keep(db, table, row, problem)
    if table == "jobs":
        said = _mend_run(db, read, number)
        if said:
            return said
        for other in _OF_RUN:
            for each in db.execute(
                f"SELECT rowid AS number, * FROM {other} WHERE run = ?", (number,)
            ).fetchall():
                _keep(db, other, each, f"what it belongs to is damaged: {table} {number}")
    db.execute(f"DELETE FROM {table} WHERE rowid = ?", (number,))
    return []


def _mend_run(db: sqlite3.Connection, read: Read[_T], number: int) -> list[_T]:
    """A job that runs stays known, with its placements, its override and its notes, where its name
    is whole; it has started when it was seen first."""
    db.execute(
        "UPDATE jobs SET user = CASE typeof(user) WHEN 'integer' THEN user END,"
        " hooked = hooked IS 1, started = CASE typeof(started) WHEN 'real' THEN started"
        " ELSE coalesce((SELECT min(at) FROM placements WHERE run = jobs.id), ?) END"
        " WHERE id = ? AND ended IS NULL",
        (time.time(), number),
    )
    row = _row(db, "jobs", number)
    return _try(read, row)[0] if row else []


def _row(db: sqlite3.Connection, table: str, number: int) -> sqlite3.Row | None:
    row: sqlite3.Row | None = db.execute(
        f"SELECT rowid AS number, * FROM {table} WHERE rowid = ?", (number,)
    ).fetchone()
    return row


def _keep(db: sqlite3.Connection, table: str, row: sqlite3.Row, problem: str) -> None:
    db.execute(
        "INSERT INTO damaged (at, origin, number, problem, content) VALUES (?, ?, ?, ?, ?)",
        (time.time(), table, row["number"], problem, json.dumps(dict(row), default=repr)),
    )
