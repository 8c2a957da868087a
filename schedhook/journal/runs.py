"""Runs of jobs on this host: when each started and ended."""

from __future__ import annotations

import sqlite3
import time
from dataclasses import dataclass

from schedhook.host.processes import boot_id, boot_time
from schedhook.journal import columns
from schedhook.journal.database import Database

OPEN_RUN = "(SELECT id FROM runs WHERE scheduler = ? AND job = ? AND ended IS NULL)"
"""SQL for the number of the job's open run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRun:
    """One run of a job on this host; a requeued job has several."""

    number: int
    """Its number in the journal."""
    scheduler: str
    job: str
    user: int | None
    hooked: bool
    """A hook of the scheduler reported its start, so one will report its end."""
    started: float
    ended: float | None
    boot: str | None = None
    """The host's boot in which it started, see `boot_id`; None if it is unknown."""
    alias: str | None = None
    """How people write the job, empty if by its id; None if nothing has told yet."""
    name: str | None = None
    """The name that the job's user gave it; None if nothing has told yet."""

    def is_of_this_boot(self) -> bool:
        """Return whether the run started since the host's last boot.

        The boot's id decides, if it was recorded: the clock may have been set since.
        """
        return self.started >= boot_time() if self.boot is None else self.boot == boot_id()


class Runs:
    """The table `runs`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def record_start(
        self,
        scheduler: str,
        job: str,
        user: int | None = None,
        at: float | None = None,
        *,
        hooked: bool = True,
    ) -> None:
        """Record that a job started at `at`.

        For a run that is known already, also one that has ended since (the message was late), only
        what was unknown is added.
        """
        at = time.time() if at is None else at
        with self._database.write() as db:
            run = self._latest(scheduler, job)
            if run is not None and (run.ended is None or run.ended >= at):
                db.execute(
                    "UPDATE runs SET user = coalesce(user, ?), started = min(started, ?),"
                    " hooked = max(hooked, ?) WHERE id = ?",
                    (user, at, hooked, run.number),
                )
            else:
                _insert(db, scheduler, job, at, user, hooked)

    def describe(self, scheduler: str, job: str, alias: str, name: str) -> None:
        """Record what people call the job's open run, if there is one."""
        with self._database.write() as db:
            db.execute(
                f"UPDATE runs SET alias = ?, name = ? WHERE id = {OPEN_RUN}",
                (alias, name, scheduler, job),
            )

    def record_end(self, scheduler: str, job: str, at: float | None = None) -> bool:
        """Record that a job ended at `at`; its override and its notes are deleted.

        Return whether a run was open. A job that was unknown gets a run that has ended.
        """
        at = time.time() if at is None else at
        with self._database.write() as db:
            run = self._latest(scheduler, job)
            if run is None:
                run_id = _insert(db, scheduler, job, at)
            elif run.ended is not None or run.started > at:
                return False  # a second message, or a late one: the job has started again since
            else:
                run_id = run.number
            db.execute("UPDATE runs SET ended = ? WHERE id = ?", (at, run_id))
            db.execute("DELETE FROM overrides WHERE run = ?", (run_id,))
            db.execute("DELETE FROM notes WHERE run = ?", (run_id,))
            return run is not None

    def members_of(self, text: str) -> tuple[str, ...]:
        """Return the jobs that are elements or components of the one with this number, as written.

        Those of `36` are called `36_1` or `36+1`; PBS's have such an id: `36[1].server`.
        """
        base = text.removesuffix("[]")
        which = (
            "WHERE substr(alias, 1, length(?1) + 1) IN (?1 || '_', ?1 || '+')"
            " OR substr(job, 1, length(?1) + 1) = ?1 || '[' ORDER BY started, id"
        )
        with self._database.read():
            runs = self._database.rows.read("runs", parse_run, which, (base,))
        return tuple(dict.fromkeys(run.alias or run.job for run in runs))

    def latest(self, scheduler: str, job: str) -> JobRun | None:
        """Return the job's latest run, None if the job is unknown."""
        with self._database.read():
            return self._latest(scheduler, job)

    def list_open(
        self, scheduler: str | None = None, *, unsettled_only: bool = False
    ) -> tuple[JobRun, ...]:
        """Return the runs that have not ended, in the order of their starts.

        With `unsettled_only`, return only those with a task whose memory is not on the nodes of its
        last placement.
        """
        which = (
            "WHERE ended IS NULL AND (?1 IS NULL OR scheduler = ?1)"
            " AND (NOT ?2 OR EXISTS (SELECT 1 FROM placements AS p WHERE p.run = runs.id"
            " AND NOT p.settled AND p.id = (SELECT max(id) FROM placements AS q"
            " WHERE q.run = p.run AND q.task = p.task))) ORDER BY started, id"
        )
        with self._database.read():
            values = (scheduler, unsettled_only)
            return tuple(self._database.rows.read("runs", parse_run, which, values))

    def _latest(self, scheduler: str, job: str) -> JobRun | None:
        which = "WHERE scheduler = ? AND job = ? ORDER BY started DESC, id DESC"
        return next(
            iter(self._database.rows.read("runs", parse_run, which, (scheduler, job))), None
        )


def parse_run(row: sqlite3.Row) -> JobRun:
    """Return the value of a row of `runs`."""
    return JobRun(
        number=row["number"],
        scheduler=columns.text(row, "scheduler"),
        job=columns.text(row, "job"),
        user=columns.optional(columns.integer, row, "user"),
        hooked=bool(columns.integer(row, "hooked")),
        started=columns.timestamp(row, "started"),
        ended=columns.optional(columns.timestamp, row, "ended"),
        boot=columns.optional(columns.text, row, "boot"),
        alias=columns.optional(columns.text, row, "alias"),
        name=columns.optional(columns.text, row, "name"),
    )


def find_open_run(db: sqlite3.Connection, scheduler: str, job: str) -> int | None:
    """Return the number of the job's open run, None if it has none."""
    number: int | None = db.execute(f"SELECT {OPEN_RUN}", (scheduler, job)).fetchone()[0]
    return number


def ensure_open_run(db: sqlite3.Connection, scheduler: str, job: str, at: float) -> int:
    """Return the number of the job's open run; if it has none, add one that started at `at`."""
    number = find_open_run(db, scheduler, job)
    return _insert(db, scheduler, job, at) if number is None else number


def _insert(
    db: sqlite3.Connection,
    scheduler: str,
    job: str,
    at: float,
    user: int | None = None,
    hooked: bool = False,
) -> int:
    # A hook's event may have waited in the spool since an earlier boot.
    uptime = time.clock_gettime(time.CLOCK_BOOTTIME)
    boot = boot_id() if time.time() - at <= uptime else None
    cursor = db.execute(
        "INSERT INTO runs (scheduler, job, user, hooked, started, boot) VALUES (?, ?, ?, ?, ?, ?)",
        (scheduler, job, user, hooked, at, boot),
    )
    assert cursor.lastrowid is not None
    return cursor.lastrowid
