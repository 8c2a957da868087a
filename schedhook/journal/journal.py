"""The journal: what was seen and done, per job, on this host. SQLite, so that processes of many
jobs write at one time and a crash loses nothing that was committed.

Times are seconds after the epoch. JournalError, one line with a remedy, for a journal that cannot
be opened, read or written; whoever serves a hook logs it and goes on.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import sqlite3
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from schedhook.host.processes import boot_id
from schedhook.journal.counters import Series, totals_of
from schedhook.journal.database import Database
from schedhook.journal.file import JournalBusyError, JournalError
from schedhook.journal.locks import JobLockedError, JobLocks
from schedhook.journal.rows import (
    Counts,
    JobRun,
    KnownTask,
    event_of,
    note_of,
    override_data,
    override_of,
    placement_row_of,
    result_of,
    run_of,
    tell,
    total_of,
)
from schedhook.values.model import Event, Placement, PlacementOverride, Report
from schedhook.values.sets import CpuSet

_T = TypeVar("_T")

_RUN = "(SELECT id FROM jobs WHERE scheduler = ? AND job = ? AND ended IS NULL)"
"""The job's open run."""


def default_path(environ: Mapping[str, str] = os.environ) -> Path:
    """/var/lib/schedhook/journal.db for root, else below $XDG_STATE_HOME (~/.local/state)."""
    if os.geteuid() == 0:
        return Path("/var/lib/schedhook/journal.db")
    state = environ.get("XDG_STATE_HOME", "")
    base = Path(state) if state.startswith("/") else Path("~/.local/state").expanduser()
    return base / "schedhook" / "journal.db"


__all__ = [
    "JobLockedError",
    "JobRun",
    "Journal",
    "JournalBusyError",
    "JournalError",
    "KnownTask",
    "default_path",
]


class Journal:
    """An open journal. May be used from several threads; not across a fork."""

    def __init__(self, database: Database) -> None:
        self.path = database.path
        self._database = database
        self._rows = database.rows
        self._read = database.read
        self._write = database.write
        self._locks = JobLocks(database)

    @classmethod
    def open(cls, path: Path | None = None, *, create: bool = True) -> Journal:
        """Open the journal at `path` (default: default_path()), and make it where there is none
        unless `create` is false. Its directory gets mode 0700, its file 0600."""
        return cls(Database.open(path or default_path(), create=create))

    @classmethod
    def in_memory(cls) -> Journal:
        """A journal that lasts as long as this process: better than none."""
        return cls(Database.in_memory())

    def beside(self, patience: float) -> Journal:
        """The same journal for a thread that waits for nobody's writes longer than `patience`
        seconds, those of this process's other threads included. It has to be closed first; itself
        where it is in memory, or cannot be opened twice."""
        other = self._database.beside(patience)
        return Journal(other) if other else self

    def close(self) -> None:
        """Close the file. What was written stays."""
        self._database.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # -- jobs ------------------------------------------------------------------------------------

    def started(
        self,
        scheduler: str,
        job: str,
        user: int | None = None,
        at: float | None = None,
        *,
        hooked: bool = True,
    ) -> None:
        """A job has started, at `at`. Said twice, or after its end (a message that came late), it
        changes nothing but what was unknown."""
        at = time.time() if at is None else at
        with self._write() as db:
            run = self._latest(scheduler, job)
            if run is not None and (run.ended is None or run.ended >= at):
                db.execute(
                    "UPDATE jobs SET user = coalesce(user, ?), started = min(started, ?),"
                    " hooked = max(hooked, ?) WHERE id = ?",
                    (user, at, hooked, run.number),
                )
            else:
                _open_run(db, scheduler, job, at, user, hooked)

    def ended(self, scheduler: str, job: str, at: float | None = None) -> bool:
        """A job has ended. Whether it was known. One never seen is recorded all the same."""
        at = time.time() if at is None else at
        with self._write() as db:
            run = self._latest(scheduler, job)
            if run is None:
                run_id = _open_run(db, scheduler, job, at)
            elif run.ended is not None or run.started > at:
                return False  # said twice, or late: the job has started anew meanwhile
            else:
                run_id = run.number
            db.execute("UPDATE jobs SET ended = ? WHERE id = ?", (at, run_id))
            db.execute("DELETE FROM overrides WHERE run = ?", (run_id,))
            db.execute("DELETE FROM notes WHERE run = ?", (run_id,))
            return run is not None

    def run(self, scheduler: str, job: str) -> JobRun | None:
        """The job's latest run."""
        with self._read():
            return self._latest(scheduler, job)

    def _latest(self, scheduler: str, job: str) -> JobRun | None:
        which = "WHERE scheduler = ? AND job = ? ORDER BY started DESC, id DESC"
        return next(iter(self._rows.read("jobs", run_of, which, (scheduler, job))), None)

    def open_runs(
        self, scheduler: str | None = None, *, unsettled_only: bool = False
    ) -> tuple[JobRun, ...]:
        """Jobs that have not ended, in the order of their starts; `unsettled_only`: those with a
        task whose memory does not lie where its placement is."""
        with self._read():
            which = (
                "WHERE ended IS NULL AND (?1 IS NULL OR scheduler = ?1)"
                " AND (NOT ?2 OR EXISTS (SELECT 1 FROM placements AS p WHERE p.run = jobs.id"
                " AND NOT p.settled AND p.id = (SELECT max(id) FROM placements AS q"
                " WHERE q.run = p.run AND q.task = p.task))) ORDER BY started, id"
            )
            return tuple(self._rows.read("jobs", run_of, which, (scheduler, unsettled_only)))

    # -- placements ------------------------------------------------------------------------------

    def record_placements(
        self,
        scheduler: str,
        job: str,
        tasks: Mapping[str, Placement],
        *,
        settled: bool = True,
        at: float | None = None,
    ) -> None:
        """Tasks have these placements; `settled`: and their memory lies there. What was known is
        not written again. The job is taken as started where nobody said so."""
        at = time.time() if at is None else at
        with self._write() as db:
            run = _open_id(db, scheduler, job)
            if run is None:
                run = _open_run(db, scheduler, job, at)
            for task, placement in tasks.items():
                new = (str(placement.cpus), str(placement.nodes), int(settled))
                last = db.execute(
                    "SELECT cpus, nodes, settled FROM placements WHERE run = ? AND task = ?"
                    " ORDER BY id DESC LIMIT 1",
                    (run, task),
                ).fetchone()
                if last is None or tuple(last) != new:
                    db.execute(
                        "INSERT INTO placements (run, task, cpus, nodes, settled, at)"
                        " VALUES (?, ?, ?, ?, ?, ?)",
                        (run, task, *new, at),
                    )

    def bindings(self, scheduler: str, job: str, tasks: Collection[str]) -> dict[str, Placement]:
        """How these tasks of the open run were bound when one of them at least was last seen bound:
        to fewer processors than all together have. Empty where that was never seen."""
        last: dict[str, Placement] = {}
        bound: dict[str, Placement] = {}
        of_these = (row for row in self._seen(scheduler, job) if row[1] in tasks)
        for _, at_once in itertools.groupby(of_these, key=lambda row: row[0]):
            last |= {task: placement for _, task, placement, _ in at_once}
            everything = CpuSet(cpu for each in last.values() for cpu in each.cpus)
            if any(each.cpus < everything for each in last.values()):
                bound = dict(last)
        return bound

    def known_tasks(self, scheduler: str, job: str) -> dict[str, KnownTask]:
        """What is known of each task of the open run; empty where there is none."""
        result: dict[str, KnownTask] = {}
        for _, task, placement, settled in self._seen(scheduler, job):
            result[task] = KnownTask.after(result.get(task), placement, settled)
        return result

    def _seen(self, scheduler: str, job: str) -> list[tuple[float, str, Placement, bool]]:
        """What `saw` wrote for the open run, in that order."""
        which = f"WHERE run = {_RUN} ORDER BY id"
        with self._read():
            return self._rows.read("placements", placement_row_of, which, (scheduler, job))

    def placements(self, scheduler: str, job: str) -> dict[str, Placement]:
        """Where each task's memory was brought to, or first seen, last."""
        return {task: seen.home for task, seen in self.known_tasks(scheduler, job).items()}

    # -- events ----------------------------------------------------------------------------------

    def put_event(self, event: Event, at: float) -> int | None:
        """Keep an event until `finish_event`. Its number, None for one that is there already."""
        with self._write() as db:
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

    def find_event(self, event: Event, at: float) -> tuple[int, str | None] | None:
        """The number of an event that is there already and, once it has been handled, with what
        result."""
        with self._read():
            which = "WHERE (scheduler, point, job, at) = (?, ?, ?, ?)"
            of = (event.scheduler, event.point, event.job, at)
            return next(iter(self._rows.read("events", result_of, which, of)), None)

    def finish_event(self, number: int, summary: str) -> None:
        """The event has been handled, with this result in one line."""
        with self._write() as db:
            db.execute(
                "UPDATE events SET done = ?, summary = ? WHERE id = ?",
                (time.time(), summary, number),
            )

    def unfinished_events(self) -> list[tuple[int, float, Event]]:
        """Events that nobody has handled to the end: (number, time, event), oldest first."""
        with self._read():
            return self._rows.read("events", event_of, "WHERE done IS NULL ORDER BY at, id")

    def add_report(
        self, report: Report, scheduler: str | None = None, job: str | None = None
    ) -> None:
        """Keep what a relocation did, and add it to the totals."""
        with self._write() as db:
            db.execute(
                "INSERT INTO reports (at, scheduler, job, outcome, report) VALUES (?, ?, ?, ?, ?)",
                (
                    time.time(),
                    scheduler,
                    job if job is not None else report.job,
                    report.outcome.value,
                    json.dumps(report.to_dict()),
                ),
            )
            db.executemany(
                "INSERT INTO totals VALUES (?, ?) ON CONFLICT (series) DO UPDATE SET"
                " value = value + excluded.value",
                [(json.dumps(key), more) for key, more in totals_of(report, scheduler).items()],
            )

    def totals(self) -> dict[Series, float]:
        """The sums over every report ever kept, those included that `prune` has forgotten."""
        with self._read():
            return dict(self._rows.read("totals", total_of))

    # -- overrides and notes ---------------------------------------------------------------------

    def set_override(self, scheduler: str, job: str, override: PlacementOverride) -> None:
        """Keep the override until the job ends or is released; the earlier one is replaced, but
        what the scheduler gave (`was`) stays the first override's."""
        with self._write() as db:
            run = _open_id(db, scheduler, job)
            if run is None:
                run = _open_run(db, scheduler, job, time.time())
            db.execute(
                "INSERT INTO overrides (run, at, was_cpus, was_nodes, cpus, nodes, data)"
                " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (run) DO UPDATE SET"
                " at = excluded.at, cpus = excluded.cpus, nodes = excluded.nodes,"
                " data = excluded.data",
                (
                    run,
                    override.at or time.time(),
                    str(override.was.cpus),
                    str(override.was.nodes),
                    str(override.placement.cpus),
                    str(override.placement.nodes),
                    json.dumps(override_data(override)),
                ),
            )

    def override(self, scheduler: str, job: str) -> PlacementOverride | None:
        """The override that holds for the job's open run."""
        with self._read():
            overrides = self._rows.read(
                "overrides", override_of, f"WHERE run = {_RUN}", (scheduler, job)
            )
            return overrides[0] if overrides else None

    def release(self, scheduler: str, job: str) -> bool:
        """Drop the job's override. Whether there was one."""
        with self._write() as db:
            run = _open_id(db, scheduler, job)
            return db.execute("DELETE FROM overrides WHERE run = ?", (run,)).rowcount > 0

    def note(self, scheduler: str, job: str, key: str, read: Callable[[str], _T]) -> _T | None:
        """What an adapter, or the handling of events, has put down about the open run. `read`
        makes it of the text; ValueError for one that is damaged."""
        with self._read():
            which = f"WHERE run = {_RUN} AND key = ?"
            notes = self._rows.read("notes", note_of(read), which, (scheduler, job, key))
            return notes[0] if notes else None

    def noted(self, key: str) -> tuple[JobRun, ...]:
        """The open runs of which something is put down under `key`."""
        with self._read():
            which = "JOIN notes ON run = jobs.id WHERE ended IS NULL AND key = ? ORDER BY jobs.id"
            return tuple(self._rows.read("jobs", run_of, which, (key,)))

    def set_note(self, scheduler: str, job: str, key: str, text: str | None) -> None:
        """Put down a text under `key`, None to drop it; gone when the job ends."""
        with self._write() as db:
            run = _open_id(db, scheduler, job)
            if run is None:
                if text is None:
                    return
                run = _open_run(db, scheduler, job, time.time())
            if text is None:
                db.execute("DELETE FROM notes WHERE run = ? AND key = ?", (run, key))
            else:
                db.execute("INSERT OR REPLACE INTO notes VALUES (?, ?, ?)", (run, key, text))

    # -- holds -----------------------------------------------------------------------------------

    def lock(
        self, scheduler: str, job: str, wait: float = 0
    ) -> contextlib.AbstractContextManager[None]:
        """Meanwhile nobody else acts on the job. Ends with the process at the latest.

        JobLockedError where another process still holds it after `wait` seconds.
        """
        return self._locks.lock(scheduler, job, wait)

    def is_locked(self, scheduler: str, job: str) -> bool:
        """Whether another process that lives holds the job."""
        return self._locks.holder(scheduler, job) is not None

    # -- looking back ----------------------------------------------------------------------------

    def history(
        self, job: str | None = None, limit: int = 1000, since: float | None = None
    ) -> list[dict[str, Any]]:
        """The latest `limit` runs, oldest first, of all jobs or the one, each with its placements,
        events, reports and override, as JSON has them. `since` leaves out those that had ended by
        then."""
        with self._read():
            which = (
                "WHERE (?1 IS NULL OR job = ?1) AND (?3 IS NULL OR ended IS NULL OR ended >= ?3)"
                " ORDER BY started DESC, id DESC LIMIT ?2"
            )
            runs = self._rows.read("jobs", run_of, which, (job, limit, since))
            return [tell(self._rows, run) for run in reversed(runs)]

    def counts(self) -> Counts:
        """How much there is to do, and how much was damaged. Nothing is changed."""
        with self._read() as db:
            counts = db.execute(
                "SELECT (SELECT count(*) FROM jobs WHERE ended IS NULL) AS open_runs,"
                " (SELECT count(*) FROM events WHERE done IS NULL) AS unfinished_events,"
                " (SELECT count(*) FROM damaged) AS damaged"
            ).fetchone()
            return Counts(**dict(counts))

    def prune(self, days: float, per_job: int | None = None) -> int:
        """Forget runs that ended, and events and reports that are older than, `days` days ago; of
        one job's events and reports, and one task's placements, all but the newest `per_job`. How
        many runs. JobLocks of dead processes go too."""
        before = time.time() - days * 86400
        with self._write() as db:
            db.execute("DELETE FROM events WHERE at < ? AND done IS NOT NULL", (before,))
            db.execute("DELETE FROM reports WHERE at < ?", (before,))
            db.execute("DELETE FROM damaged WHERE at < ?", (before,))
            self._locks.prune()
            if per_job is not None:
                _prune_each(db, per_job)
            return db.execute("DELETE FROM jobs WHERE ended < ?", (before,)).rowcount

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """What is written meanwhile is written as a whole, or not at all: where a part of it fails,
        and where the process is killed. Others have to wait, so nothing else belongs here."""
        with self._write():
            yield


def _open_id(db: sqlite3.Connection, scheduler: str, job: str) -> int | None:
    row = db.execute(
        "SELECT id FROM jobs WHERE scheduler = ? AND job = ? AND ended IS NULL", (scheduler, job)
    ).fetchone()
    return row["id"] if row else None


def _open_run(
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
        "INSERT INTO jobs (scheduler, job, user, hooked, started, boot) VALUES (?, ?, ?, ?, ?, ?)",
        (scheduler, job, user, hooked, at, boot),
    )
    assert cursor.lastrowid is not None
    return cursor.lastrowid


def _prune_each(db: sqlite3.Connection, most: int) -> None:
    # An event that has yet to be handled stays, and so does where a task's memory was last at home.
    for table, owner, more in (
        ("events", "job, scheduler", "done IS NOT NULL"),
        ("reports", "job, scheduler", "TRUE"),
        (
            "placements",
            "run, task",
            "id < (SELECT max(id) FROM placements WHERE (run, task) IS (?1, ?2) AND settled)",
        ),
    ):
        having = f"SELECT {owner} FROM {table} GROUP BY {owner} HAVING count(*) > ?"
        of = f"({owner}) IS (?1, ?2)"
        newest = f"SELECT id FROM {table} WHERE {of} ORDER BY id DESC LIMIT 1 OFFSET ?3"
        for first, second in db.execute(having, (most,)).fetchall():
            db.execute(
                f"DELETE FROM {table} WHERE {of} AND {more} AND id <= ({newest})",
                (first, second, most),
            )
