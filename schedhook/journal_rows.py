"""What the journal keeps, as values and as the rows of its tables.

Reading a damaged row raises ValueError, TypeError, AttributeError or RecursionError.
"""

from __future__ import annotations

import json
import sqlite3
import time
from dataclasses import dataclass
from typing import Any

from schedhook.model import Event, Placement
from schedhook.sets import CpuSet, NodeSet


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run of a job on this host; a requeued job has several."""

    scheduler: str
    job: str
    user: int | None
    hooked: bool
    """A hook of the scheduler told of its start, so one will tell of its end."""
    started: float
    ended: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What is known of one task's placement."""

    home: Placement
    """Where its memory was brought to, or first seen, last."""
    last: Placement
    """What was seen last."""
    visited: NodeSet
    """Nodes that it could use since it was at home, where pages may lie too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """A placement that is to hold, whatever the scheduler writes, until the job ends."""

    was: Placement
    """What the scheduler gave the job, and goes on writing."""
    placement: Placement
    leaving: CpuSet | None = None
    """The processors that the job is being moved away from; None once it has arrived."""
    enforcing: bool = False
    """It is being made to hold again."""
    at: float = 0.0

    @property
    def under_way(self) -> bool:
        """Whoever finds it so, with nobody at work on the job, finishes what was interrupted."""
        return self.leaving is not None or self.enforcing


def wish_data(wish: Wish) -> dict[str, object]:
    """What of a wish has no column of its own."""
    data: dict[str, object] = {"leaving": str(wish.leaving)} if wish.leaving else {}
    return data | ({"enforcing": True} if wish.enforcing else {})


def run_of(row: sqlite3.Row) -> Run:
    """A row of `jobs`."""
    return Run(
        scheduler=row["scheduler"],
        job=row["job"],
        user=row["user"],
        hooked=bool(row["hooked"]),
        started=float(row["started"]),
        ended=None if row["ended"] is None else float(row["ended"]),
    )


def event_of(row: sqlite3.Row) -> Event:
    """A row of `events`."""
    return Event(
        scheduler=row["scheduler"],
        point=row["point"],
        job=row["job"],
        user=row["user"],
        host=row["host"],
        data=dict(json.loads(row["data"])),
    )


def wish_of(row: sqlite3.Row) -> Wish:
    """A row of `wishes`."""
    data = json.loads(row["data"])
    leaving = data.get("leaving")
    return Wish(
        was=placement_of(row["was_cpus"], row["was_nodes"]),
        placement=placement_of(row["cpus"], row["nodes"]),
        leaving=CpuSet.parse(leaving) if leaving else None,
        enforcing=bool(data.get("enforcing")),
        at=float(row["at"]),
    )


def placement_of(cpus: str, nodes: str) -> Placement:
    """Two columns of `placements` or `wishes`."""
    return Placement(cpus=CpuSet.parse(cpus), nodes=NodeSet.parse(nodes))


def tell(db: sqlite3.Connection, row: sqlite3.Row) -> dict[str, Any]:
    """A row of `jobs` with all that belongs to the run, as `history --json` prints it."""
    # Events and reports carry no run: a prolog's event is there before the run is.
    span = (row["scheduler"], row["job"], row["started"], row["ended"] or time.time() + 86400)
    wish = db.execute("SELECT * FROM wishes WHERE run = ?", (row["id"],)).fetchone()
    return {
        **{key: row[key] for key in ("scheduler", "job", "user", "started", "ended")},
        "placements": [
            {**dict(placement), "settled": bool(placement["settled"])}
            for placement in db.execute(
                "SELECT at, task, cpus, nodes, settled FROM placements WHERE run = ? ORDER BY id",
                (row["id"],),
            )
        ],
        "events": [
            dict(event)
            for event in db.execute(
                "SELECT at, point, summary, done FROM events WHERE scheduler = ? AND job = ?"
                " AND at BETWEEN ? AND ? ORDER BY at, id",
                span,
            )
        ],
        "reports": [
            {"at": report["at"], **json.loads(report["report"])}
            for report in db.execute(
                "SELECT at, report FROM reports WHERE coalesce(scheduler, ?1) = ?1 AND job = ?2"
                " AND at BETWEEN ?3 AND ?4 + 1 ORDER BY at, id",
                span,
            )
        ],
        "wish": {key: wish[key] for key in ("at", "cpus", "nodes", "was_cpus", "was_nodes")}
        if wish
        else None,
    }
