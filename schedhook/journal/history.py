"""What `history --json` prints: runs with all that belongs to them."""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Iterable, Mapping
from typing import Any

from schedhook.journal import columns
from schedhook.journal.database import Database
from schedhook.journal.gains import KEEP_LOCAL, latest_gain
from schedhook.journal.overrides import parse_override
from schedhook.journal.placements import parse_task_placement
from schedhook.journal.runs import JobRun, parse_run

_SUSPENDED_AFTER = {
    "suspended": True,
    "postsuspend": True,
    "resuming": False,
    "preresume": False,
    "resumed": False,
}
"""Whether a job is suspended after an event at this point."""


def read_history(
    database: Database, job: str | None = None, limit: int = 1000, since: float | None = None
) -> list[dict[str, Any]]:
    """Return the latest `limit` runs, oldest first, of one job or of all, as JSON objects.

    `job` is its id, that without the server's name (`12` for PBS's `12.server`), or its alias. Each
    run has its placements, events, reports and override. Runs that ended before `since`, in seconds
    after the epoch, are left out.
    """
    which = (
        "WHERE (?1 IS NULL OR job = ?1 OR alias = ?4 OR substr(job, 1, length(?1) + 1) = ?1 || '.')"
        " AND (?3 IS NULL OR ended IS NULL OR ended >= ?3)"
        " ORDER BY started DESC, id DESC LIMIT ?2"
    )
    alias = job and re.sub(r"_\[([0-9]+)\]$", r"_\1", job)  # squeue writes 36_[2] as well
    with database.read():
        runs = database.rows.read("runs", parse_run, which, (job, limit, since, alias))
        return [_describe_run(database, run) for run in reversed(runs)]


def _describe_run(database: Database, run: JobRun) -> dict[str, Any]:
    read = database.rows.read
    of_run, values = "WHERE run = ? ORDER BY rowid", (run.number,)
    # Events and reports have no run: a prolog's event is stored before its run is.
    span = (run.scheduler, run.job, run.started, run.ended or time.time() + 86400)
    overrides = read("overrides", _describe_override, of_run, values)
    events = read(
        "events",
        _describe_event,
        "WHERE scheduler = ? AND job = ? AND at BETWEEN ? AND ? ORDER BY at, id",
        span,
    )
    gain = latest_gain(events)
    return {
        "scheduler": run.scheduler,
        "job": run.job,
        "alias": run.alias or None,
        "name": run.name or None,
        "user": run.user,
        "started": run.started,
        "ended": run.ended,
        "suspended": run.ended is None and _is_suspended(events),
        "placements": read("placements", _describe_placement, of_run, values),
        "events": events,
        "reports": read(
            "reports",
            _describe_report,
            "WHERE coalesce(scheduler, ?1) = ?1 AND job = ?2"
            " AND at BETWEEN ?3 AND ?4 + 1 ORDER BY at, id",
            span,
        ),
        "override": overrides[0] if overrides else None,
        "off_node_gib_hours_avoided": gain and round(gain.gib_hours(run.ended or time.time()), 6),
    }


def _is_suspended(events: Iterable[Mapping[str, Any]]) -> bool:
    """Return whether the last of the events that tell says so."""
    told = [_SUSPENDED_AFTER[each["point"]] for each in events if each["point"] in _SUSPENDED_AFTER]
    return bool(told) and told[-1]


def _describe_placement(row: sqlite3.Row) -> dict[str, Any]:
    found = parse_task_placement(row)
    return {
        "at": found.at,
        "task": found.task,
        "cpus": str(found.placement.cpus),
        "nodes": str(found.placement.nodes),
        "settled": found.settled,
    }


def _describe_event(row: sqlite3.Row) -> dict[str, Any]:
    point = columns.text(row, "point")
    found = {
        "at": columns.timestamp(row, "at"),
        "point": point,
        "summary": columns.optional(columns.text, row, "summary"),
        "done": columns.optional(columns.timestamp, row, "done"),
    }
    if point == KEEP_LOCAL:
        found["figures"] = columns.json_object(columns.text(row, "data"))
    return found


_REPORT_TYPES = {
    "outcome": str,
    "bytes_moved": int,
    "bytes_left": int,
    "node_map": dict,
    "processes": list,
}
"""Keys that the readers of a report rely on."""


def _describe_report(row: sqlite3.Row) -> dict[str, Any]:
    report = columns.json_object(columns.text(row, "report"))
    for key, kind in _REPORT_TYPES.items():
        if not isinstance(report.get(key), kind):
            raise ValueError(f"its {key} is {report.get(key)!r:.60}")
    return {"at": columns.timestamp(row, "at"), **report}


def _describe_override(row: sqlite3.Row) -> dict[str, Any]:
    override = parse_override(row)
    return {
        "at": override.at,
        "cpus": str(override.placement.cpus),
        "nodes": str(override.placement.nodes),
        "was_cpus": str(override.was.cpus),
        "was_nodes": str(override.was.nodes),
    }
