"""What the journal keeps, as values and as the rows of its tables.

Reading a damaged row raises ValueError, which says what is wrong.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from schedhook.host.processes import boot_id, boot_time
from schedhook.journal.damage import Rows
from schedhook.values.model import Event, Placement, PlacementOverride
from schedhook.values.sets import CpuSet, NodeSet

_T = TypeVar("_T")

_LATEST = 1e11
"""Seconds after the epoch; the calendar ends there for some."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRun:
    """One run of a job on this host; a requeued job has several."""

    number: int
    """Its own in the journal."""
    scheduler: str
    job: str
    user: int | None
    hooked: bool
    """A hook of the scheduler told of its start, so one will tell of its end."""
    started: float
    ended: float | None
    boot: str | None = None
    """The host's boot in which it started, see `boot_id`; None where nobody could tell."""

    def is_of_this_boot(self) -> bool:
        """By the kernel's word where that was kept: a clock may be set at any time."""
        return self.started >= boot_time() if self.boot is None else self.boot == boot_id()


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownTask:
    """What is known of one task's placement."""

    home: Placement
    """Where its memory was brought to, or first seen, last."""
    last: Placement
    """What was seen last."""
    visited: NodeSet
    """Nodes that it could use since it was at home, where pages may lie too."""

    @classmethod
    def after(cls, before: KnownTask | None, placement: Placement, settled: bool) -> KnownTask:
        """What is known once it was seen there; `settled`: with its memory."""
        if settled or before is None:
            return cls(home=placement, last=placement, visited=NodeSet())
        visited = before.visited | placement.nodes
        return cls(home=before.home, last=placement, visited=visited)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """How many rows there are."""

    open_runs: int
    unfinished_events: int
    damaged: int
    """Rows that could not be understood, and were set aside."""


def override_data(override: PlacementOverride) -> dict[str, object]:
    """What of a override has no column of its own."""
    data: dict[str, object] = {"leaving": str(override.leaving)} if override.leaving else {}
    return data | ({"reapplying": True} if override.reapplying else {})


def run_of(row: sqlite3.Row) -> JobRun:
    """A row of `jobs`."""
    return JobRun(
        number=row["number"],
        scheduler=_text(row, "scheduler"),
        job=_text(row, "job"),
        user=_unless_null(_whole, row, "user"),
        hooked=bool(_whole(row, "hooked")),
        started=_time(row, "started"),
        ended=_unless_null(_time, row, "ended"),
        boot=_unless_null(_text, row, "boot"),
    )


def event_of(row: sqlite3.Row) -> tuple[int, float, Event]:
    """A row of `events`: number, time, event."""
    event = Event(
        scheduler=_text(row, "scheduler"),
        point=_text(row, "point"),
        job=_text(row, "job"),
        user=_unless_null(_whole, row, "user"),
        host=_text(row, "host"),
        data=json_object(_text(row, "data")),
    )
    return row["number"], _time(row, "at"), event


def result_of(row: sqlite3.Row) -> tuple[int, str | None]:
    """A row of `events`: number and, once it has been handled, with what result."""
    return row["number"], None if row["done"] is None else _text(row, "summary")


def placement_row_of(row: sqlite3.Row) -> tuple[float, str, Placement, bool]:
    """A row of `placements`: when, the task, its placement, whether its memory was there."""
    placement = placement_of(row, "cpus", "nodes")
    return _time(row, "at"), _text(row, "task"), placement, bool(_whole(row, "settled"))


def override_of(row: sqlite3.Row) -> PlacementOverride:
    """A row of `overrides`."""
    data = json_object(_text(row, "data"))
    return PlacementOverride(
        was=placement_of(row, "was_cpus", "was_nodes"),
        placement=placement_of(row, "cpus", "nodes"),
        leaving=CpuSet.parse(str(data["leaving"])) if data.get("leaving") else None,
        reapplying=bool(data.get("reapplying")),
        at=_time(row, "at"),
    )


def total_of(row: sqlite3.Row) -> tuple[tuple[str, ...], float]:
    """A row of `totals`: series, sum."""
    series = _json(_text(row, "series"))
    if not (isinstance(series, list) and series and all(isinstance(each, str) for each in series)):
        raise ValueError(f"series is {series!r:.60}")
    return tuple(series), _number(row, "value")


def lock_of(row: sqlite3.Row) -> tuple[int, int]:
    """A row of `holds`: process and its start time."""
    return _whole(row, "pid"), _whole(row, "start_time")


def note_of(read: Callable[[str], _T]) -> Callable[[sqlite3.Row], _T]:
    """A row of `notes`, whose text is its writer's business."""
    return lambda row: read(_text(row, "text"))


def placement_of(row: sqlite3.Row, cpus: str, nodes: str) -> Placement:
    """Two columns of `placements` or `overrides`."""
    return Placement(
        cpus=CpuSet.parse(_text(row, cpus)),
        nodes=NodeSet.parse(_text(row, nodes)),
    )


def json_object(text: str) -> dict[str, Any]:
    """ValueError for any other text."""
    value = _json(text)
    if not isinstance(value, dict):
        raise ValueError(f"{value!r:.60} is no JSON object")
    return value


def _json(text: str) -> object:
    try:
        value: object = json.loads(text)
    except RecursionError:
        raise ValueError("JSON that is nested too deeply") from None
    return value


def _typed(row: sqlite3.Row, column: str, kind: type[_T]) -> _T:
    value = row[column]
    if not isinstance(value, kind):
        raise ValueError(f"{column} is {value!r:.60}")
    return value


def _text(row: sqlite3.Row, column: str) -> str:
    value = _typed(row, column, str)
    try:
        value.encode()  # what is no UTF-8 was read with surrogates in its place
    except UnicodeEncodeError:
        raise ValueError(f"{column} is no text: {value!r:.60}") from None
    return value


def _whole(row: sqlite3.Row, column: str) -> int:
    return _typed(row, column, int)


def _number(row: sqlite3.Row, column: str) -> float:
    return _typed(row, column, float)


def _time(row: sqlite3.Row, column: str) -> float:
    value = _number(row, column)
    if not abs(value) < _LATEST:
        raise ValueError(f"{column} is {value!r}")
    return value


def _unless_null(
    read: Callable[[sqlite3.Row, str], _T], row: sqlite3.Row, column: str
) -> _T | None:
    return None if row[column] is None else read(row, column)


# -- as `history --json` prints them -------------------------------------------------------------


def tell(rows: Rows, run: JobRun) -> dict[str, Any]:
    """A run with all that belongs to it."""
    of_run, values = "WHERE run = ? ORDER BY rowid", (run.number,)
    # Events and reports carry no run: a prolog's event is there before the run is.
    span = (run.scheduler, run.job, run.started, run.ended or time.time() + 86400)
    overrides = rows.read("overrides", _tell_override, of_run, values)
    return {
        "scheduler": run.scheduler,
        "job": run.job,
        "user": run.user,
        "started": run.started,
        "ended": run.ended,
        "placements": rows.read("placements", _tell_placement, of_run, values),
        "events": rows.read(
            "events",
            _tell_event,
            "WHERE scheduler = ? AND job = ? AND at BETWEEN ? AND ? ORDER BY at, id",
            span,
        ),
        "reports": rows.read(
            "reports",
            _tell_report,
            "WHERE coalesce(scheduler, ?1) = ?1 AND job = ?2"
            " AND at BETWEEN ?3 AND ?4 + 1 ORDER BY at, id",
            span,
        ),
        "override": overrides[0] if overrides else None,
    }


def _tell_placement(row: sqlite3.Row) -> dict[str, Any]:
    at, task, placement, settled = placement_row_of(row)
    return {
        "at": at,
        "task": task,
        "cpus": str(placement.cpus),
        "nodes": str(placement.nodes),
        "settled": settled,
    }


def _tell_event(row: sqlite3.Row) -> dict[str, Any]:
    return {
        "at": _time(row, "at"),
        "point": _text(row, "point"),
        "summary": _unless_null(_text, row, "summary"),
        "done": _unless_null(_time, row, "done"),
    }


_OF_REPORT = {
    "outcome": str,
    "bytes_moved": int,
    "bytes_left": int,
    "node_map": dict,
    "processes": list,
}
"""What is looked at in every report."""


def _tell_report(row: sqlite3.Row) -> dict[str, Any]:
    report = json_object(_text(row, "report"))
    for key, kind in _OF_REPORT.items():
        if not isinstance(report.get(key), kind):
            raise ValueError(f"its {key} is {report.get(key)!r:.60}")
    return {"at": _time(row, "at"), **report}


def _tell_override(row: sqlite3.Row) -> dict[str, Any]:
    override = override_of(row)
    return {
        "at": override.at,
        "cpus": str(override.placement.cpus),
        "nodes": str(override.placement.nodes),
        "was_cpus": str(override.was.cpus),
        "was_nodes": str(override.was.nodes),
    }
