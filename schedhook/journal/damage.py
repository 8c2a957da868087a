"""Damaged rows of the journal: each one costs its own content and nothing else.

A bad disk, bad memory or another program may have changed a row. Such a row is moved to the table
`damaged`, with its content and what is wrong with it, so that it is met only once. The log names it
in one line.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TypeVar

from schedhook.journal.errors import JournalError
from schedhook.values.log import get_logger

_log = get_logger()

_T = TypeVar("_T")

Parse = Callable[[sqlite3.Row], _T]
"""Return the value of a row; raise ValueError, which says what is wrong, if it is damaged."""

_OF_RUN = ("placements", "overrides", "notes")
"""Tables whose rows go with their row of `runs`."""


class Rows:
    """Reads rows of the journal. `write` opens the transaction that sets damaged rows aside."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        write: Callable[[], AbstractContextManager[sqlite3.Connection]],
    ) -> None:
        self._db = connection
        self._write = write

    def read(
        self, table: str, parse: Parse[_T], which: str = "", values: Sequence[object] = ()
    ) -> list[_T]:
        """Return the values of the table's rows that `which`, the rest of the query, chooses.

        `parse` finds a row's number in the column `number`. Damaged rows are set aside; while the
        journal cannot be written, they are only left out.
        """
        rows = self._db.execute(
            f"SELECT {table}.rowid AS number, {table}.* FROM {table} {which}", values
        ).fetchall()
        result: list[_T] = []
        for row in rows:
            parsed, problem = _try(parse, row)
            result += self._set_aside(table, parse, row["number"], problem) if problem else parsed
        return result

    def _set_aside(self, table: str, parse: Parse[_T], number: int, problem: str) -> list[_T]:
        row = f"{table} {number}"
        try:
            with self._write() as db:
                parsed = _move(db, table, parse, number)
        except JournalError as error:
            _log.error("damaged row left out", row=row, problem=problem, not_set_aside=str(error))
            return []
        _log.error("damaged row set aside", row=row, problem=problem)
        return parsed


def _try(parse: Parse[_T], row: sqlite3.Row) -> tuple[list[_T], str]:
    """Return the row's value in a list, or an empty list and what is wrong with the row."""
    try:
        return [parse(row)], ""
    except ValueError as error:
        return [], str(error) or type(error).__name__


def _move(db: sqlite3.Connection, table: str, parse: Parse[_T], number: int) -> list[_T]:
    """Move the row to `damaged`.

    Return its value if it turns out to be whole: repaired here, or rewritten by another process
    since it was read.
    """
    row = _row(db, table, number)
    if row is None:
        return []
    parsed, problem = _try(parse, row)
    if not problem:
        return parsed
    _copy(db, table, row, problem)
    if table == "runs":
        parsed = _repair_run(db, parse, number)
        if parsed:
            return parsed
        for other in _OF_RUN:
            for each in db.execute(
                f"SELECT rowid AS number, * FROM {other} WHERE run = ?", (number,)
            ).fetchall():
                _copy(db, other, each, f"the row that it belongs to is damaged: {table} {number}")
    db.execute(f"DELETE FROM {table} WHERE rowid = ?", (number,))
    return []


def _repair_run(db: sqlite3.Connection, parse: Parse[_T], number: int) -> list[_T]:
    """Replace damaged columns of an open run, so that its placements, override and notes stay.

    Its start becomes the time of its first placement, or now. A run whose scheduler or job is
    damaged cannot be repaired.
    """
    db.execute(
        "UPDATE runs SET user = CASE typeof(user) WHEN 'integer' THEN user END,"
        " alias = NULL, name = NULL, hooked = hooked IS 1,"
        " started = CASE typeof(started) WHEN 'real' THEN started"
        " ELSE coalesce((SELECT min(at) FROM placements WHERE run = runs.id), ?) END"
        " WHERE id = ? AND ended IS NULL",
        (time.time(), number),
    )
    row = _row(db, "runs", number)
    return _try(parse, row)[0] if row else []


def _row(db: sqlite3.Connection, table: str, number: int) -> sqlite3.Row | None:
    row: sqlite3.Row | None = db.execute(
        f"SELECT rowid AS number, * FROM {table} WHERE rowid = ?", (number,)
    ).fetchone()
    return row


def _copy(db: sqlite3.Connection, table: str, row: sqlite3.Row, problem: str) -> None:
    db.execute(
        "INSERT INTO damaged (at, origin, number, problem, content) VALUES (?, ?, ?, ?, ?)",
        (time.time(), table, row["number"], problem, json.dumps(dict(row), default=repr)),
    )
