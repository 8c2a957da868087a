"""Locks on jobs: of several processes that would act on a job, only one does.

A lock names a process and its start time, so it ends with the process.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator

from schedhook.host.processes import read_identity, read_status
from schedhook.journal import columns
from schedhook.journal.database import Database
from schedhook.journal.errors import JobLockedError, JournalError
from schedhook.values.errors import ProcessGoneError

_EXPIRY_SECONDS = 3600.0
_POLL_SECONDS = 0.1


class JobLocks:
    """The table `locks`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @contextlib.contextmanager
    def acquire(self, scheduler: str, job: str, wait: float = 0) -> Iterator[None]:
        """Hold the job's lock for the block; it ends with this process at the latest.

        Raise JobLockedError if another process still holds it after `wait` seconds.
        """
        end = time.monotonic() + wait
        while (holder := self._try_acquire(scheduler, job)) is not None:
            if time.monotonic() >= end:
                raise JobLockedError(
                    f"process {holder} is working on job {job}: try again when it has finished"
                )
            time.sleep(_POLL_SECONDS)
        try:
            yield
        finally:
            # A lock that cannot be deleted ends with this process.
            with contextlib.suppress(JournalError), self._database.write() as db:
                db.execute(
                    "DELETE FROM locks WHERE scheduler = ? AND job = ? AND pid = ?",
                    (scheduler, job, os.getpid()),
                )

    def is_locked(self, scheduler: str, job: str) -> bool:
        """Return whether another process, which is alive, holds the job's lock."""
        return self._holder(scheduler, job) is not None

    def delete_stale(self) -> None:
        """Delete the locks of dead processes."""
        with self._database.write() as db:
            for pid, start_time in self._database.rows.read("locks", _parse_lock):
                if _start_time(pid) != start_time:
                    db.execute("DELETE FROM locks WHERE pid = ?", (pid,))

    def _holder(self, scheduler: str, job: str) -> int | None:
        which = "WHERE scheduler = ? AND job = ? AND until > ? AND pid != ?"
        values = (scheduler, job, time.time(), os.getpid())
        with self._database.read():
            locks = self._database.rows.read("locks", _parse_lock, which, values)
        return next((pid for pid, start_time in locks if _start_time(pid) == start_time), None)

    def _try_acquire(self, scheduler: str, job: str) -> int | None:
        """Take the lock and return None, or return the process that holds it."""
        pid = os.getpid()
        with self._database.write() as db:
            holder = self._holder(scheduler, job)
            if holder is None:
                db.execute(
                    "INSERT OR REPLACE INTO locks VALUES (?, ?, ?, ?, ?)",
                    (scheduler, job, pid, _start_time(pid), time.time() + _EXPIRY_SECONDS),
                )
        return holder


def _parse_lock(row: sqlite3.Row) -> tuple[int, int]:
    """Return the process and its start time."""
    return columns.integer(row, "pid"), columns.integer(row, "start_time")


def _start_time(pid: int) -> int | None:
    """Return None for a process that has ended, also for a zombie."""
    try:
        return None if read_status(pid).state == "Z" else read_identity(pid).start_time
    except ProcessGoneError:
        return None
