"""JobLocks: of several processes that would act on a job, one does. A hold names a process and its
start time, so it ends with the process."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator

from schedhook.host.processes import read_identity, read_status
from schedhook.journal.database import Database
from schedhook.journal.file import JournalError
from schedhook.journal.rows import lock_of
from schedhook.values.errors import ProcessGoneError, RefusedError

_SECONDS = 3600.0
_POLL_SECONDS = 0.1


class JobLockedError(RefusedError):
    """Another process is at work on the job."""


class JobLocks:
    """The table of holds."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @contextlib.contextmanager
    def lock(self, scheduler: str, job: str, wait: float) -> Iterator[None]:
        """See Journal.hold."""
        end = time.monotonic() + wait
        while (holder := self._take(scheduler, job)) is not None:
            if time.monotonic() >= end:
                raise JobLockedError(
                    f"process {holder} is at work on job {job}: try again when it has finished"
                )
            time.sleep(_POLL_SECONDS)
        try:
            yield
        finally:
            # A hold that cannot be taken back ends with this process.
            with contextlib.suppress(JournalError), self._database.write() as db:
                db.execute(
                    "DELETE FROM holds WHERE scheduler = ? AND job = ? AND pid = ?",
                    (scheduler, job, os.getpid()),
                )

    def holder(self, scheduler: str, job: str) -> int | None:
        """The other process that holds the job and lives."""
        with self._database.read():
            holds = self._database.rows.read(
                "holds",
                lock_of,
                "WHERE scheduler = ? AND job = ? AND until > ? AND pid != ?",
                (scheduler, job, time.time(), os.getpid()),
            )
        return next((pid for pid, start_time in holds if _start_time(pid) == start_time), None)

    def prune(self) -> None:
        """Forget those of dead processes."""
        with self._database.write() as db:
            for pid, start_time in self._database.rows.read("holds", lock_of):
                if _start_time(pid) != start_time:
                    db.execute("DELETE FROM holds WHERE pid = ?", (pid,))

    def _take(self, scheduler: str, job: str) -> int | None:
        """Hold the job, or tell which process does."""
        pid = os.getpid()
        with self._database.write() as db:
            holder = self.holder(scheduler, job)
            if holder is None:
                db.execute(
                    "INSERT OR REPLACE INTO holds VALUES (?, ?, ?, ?, ?)",
                    (scheduler, job, pid, _start_time(pid), time.time() + _SECONDS),
                )
        return holder


def _start_time(pid: int) -> int | None:
    """None for a process that has ended, also where nobody has waited for it yet."""
    try:
        return None if read_status(pid).state == "Z" else read_identity(pid).start_time
    except ProcessGoneError:
        return None
