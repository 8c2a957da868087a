"""Delete what is old or too much, so that the journal does not fill the disk."""

from __future__ import annotations

import sqlite3
import time

from schedhook.journal.database import Database
from schedhook.journal.locks import JobLocks


def prune(database: Database, days: float, per_job: int | None = None) -> int:
    """Delete what is older than `days` days: runs that ended, events, reports and damaged rows.

    Of one job's events and reports, and of one task's placements, keep only the newest `per_job`.
    Events that have not been handled stay, and so does a task's last settled placement. Locks of
    dead processes go too. Return how many runs were deleted.
    """
    before = time.time() - days * 86400
    with database.write() as db:
        db.execute("DELETE FROM events WHERE at < ? AND done IS NOT NULL", (before,))
        db.execute("DELETE FROM reports WHERE at < ?", (before,))
        db.execute("DELETE FROM damaged WHERE at < ?", (before,))
        JobLocks(database).delete_stale()
        if per_job is not None:
            _keep_newest(db, per_job)
        return db.execute("DELETE FROM runs WHERE ended < ?", (before,)).rowcount


_LAST_SETTLED = "(SELECT max(id) FROM placements WHERE (run, task) IS (?1, ?2) AND settled)"

_GROUPS = (
    ("events", "job, scheduler", "done IS NOT NULL"),
    ("reports", "job, scheduler", "TRUE"),
    ("placements", "run, task", f"id < {_LAST_SETTLED}"),
)
"""Table, the columns that make one group, which of its rows may be deleted."""


def _keep_newest(db: sqlite3.Connection, most: int) -> None:
    for table, group, deletable in _GROUPS:
        having = f"SELECT {group} FROM {table} GROUP BY {group} HAVING count(*) > ?"
        of = f"({group}) IS (?1, ?2)"
        newest = f"SELECT id FROM {table} WHERE {of} ORDER BY id DESC LIMIT 1 OFFSET ?3"
        for first, second in db.execute(having, (most,)).fetchall():
            db.execute(
                f"DELETE FROM {table} WHERE {of} AND {deletable} AND id <= ({newest})",
                (first, second, most),
            )
