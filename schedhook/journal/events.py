"""Events that were accepted, and what came of them."""

from __future__ import annotations

import json
import sqlite3
import time
from typing import NamedTuple

from schedhook.journal import columns
from schedhook.journal.database import Database
from schedhook.values.model import Event


class StoredEvent(NamedTuple):
    """An event in the journal."""

    number: int
    """Its number in the journal."""
    at: float
    event: Event


class EventRecord(NamedTuple):
    """The number of an event in the journal and its result, None until it has been handled."""

    number: int
    summary: str | None


class Events:
    """The table `events`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def put(self, event: Event, at: float) -> int | None:
        """Store an event. Return its number, or None if it is in the journal already."""
        with self._database.write() as db:
            cursor = db.execute(
                "INSERT OR IGNORE INTO events (at, scheduler, point, job, host, user, data)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    at,
                    event.scheduler,
                    event.point,
                    event.job,
                    event.host,
                    event.user,
                    json.dumps(dict(event.data), default=str),
                ),
            )
            return cursor.lastrowid if cursor.rowcount else None

    def find(self, event: Event, at: float) -> EventRecord | None:
        """Return the number and the result of a stored event, None if it is not in the journal."""
        which = "WHERE (scheduler, point, job, at) = (?, ?, ?, ?)"
        key = (event.scheduler, event.point, event.job, at)
        with self._database.read():
            return next(iter(self._database.rows.read("events", _parse_record, which, key)), None)

    def finish(self, number: int, summary: str) -> None:
        """Record that the event has been handled; `summary` is its result in one line."""
        with self._database.write() as db:
            db.execute(
                "UPDATE events SET done = ?, summary = ? WHERE id = ?",
                (time.time(), summary, number),
            )

    def add_handled(self, event: Event, at: float, summary: str) -> None:
        """Store an event together with its result."""
        with self._database.write():
            number = self.put(event, at)
            if number is not None:
                self.finish(number, summary)

    def latest(self, scheduler: str, job: str, point: str, since: float) -> StoredEvent | None:
        """Return the latest event of a job at this point since a time, None if there is none."""
        which = (
            "WHERE (scheduler, job, point) = (?, ?, ?) AND at >= ?"
            " ORDER BY at DESC, id DESC LIMIT 1"
        )
        key = (scheduler, job, point, since)
        with self._database.read():
            return next(iter(self._database.rows.read("events", _parse_event, which, key)), None)

    def list_unfinished(self) -> list[StoredEvent]:
        """Return the events that have not been handled to the end, oldest first."""
        with self._database.read():
            return self._database.rows.read(
                "events", _parse_event, "WHERE done IS NULL ORDER BY at, id"
            )


def _parse_event(row: sqlite3.Row) -> StoredEvent:
    event = Event(
        scheduler=columns.text(row, "scheduler"),
        point=columns.text(row, "point"),
        job=columns.text(row, "job"),
        user=columns.optional(columns.integer, row, "user"),
        host=columns.text(row, "host"),
        data=columns.json_object(columns.text(row, "data")),
    )
    return StoredEvent(row["number"], columns.timestamp(row, "at"), event)


def _parse_record(row: sqlite3.Row) -> EventRecord:
    summary = None if row["done"] is None else columns.text(row, "summary")
    return EventRecord(row["number"], summary)
