"""Placement overrides of open runs; see `PlacementOverride`."""

from __future__ import annotations

import json
import sqlite3
import time

from schedhook.journal import columns
from schedhook.journal.database import Database
from schedhook.journal.runs import OPEN_RUN, ensure_open_run, find_open_run
from schedhook.values.model import PlacementOverride
from schedhook.values.sets import CpuSet


class Overrides:
    """The table `overrides`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def set(self, scheduler: str, job: str, override: PlacementOverride) -> None:
        """Store the override until the job ends or is released.

        It replaces an earlier one, except for `was`: what the scheduler gave the job stays that of
        the first override. A job without an open run gets one.
        """
        with self._database.write() as db:
            run = ensure_open_run(db, scheduler, job, time.time())
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
                    json.dumps(_data(override)),
                ),
            )

    def get(self, scheduler: str, job: str) -> PlacementOverride | None:
        """Return the override of the job's open run, None if it has none."""
        which = f"WHERE run = {OPEN_RUN}"
        with self._database.read():
            found = self._database.rows.read("overrides", parse_override, which, (scheduler, job))
        return found[0] if found else None

    def release(self, scheduler: str, job: str) -> bool:
        """Delete the job's override. Return whether it had one."""
        with self._database.write() as db:
            run = find_open_run(db, scheduler, job)
            return db.execute("DELETE FROM overrides WHERE run = ?", (run,)).rowcount > 0


def parse_override(row: sqlite3.Row) -> PlacementOverride:
    """Return the value of a row of `overrides`."""
    data = columns.json_object(columns.text(row, "data"))
    return PlacementOverride(
        was=columns.placement(row, "was_cpus", "was_nodes"),
        placement=columns.placement(row, "cpus", "nodes"),
        leaving=CpuSet.parse(str(data["leaving"])) if data.get("leaving") else None,
        reapplying=bool(data.get("reapplying")),
        at=columns.timestamp(row, "at"),
    )


def _data(override: PlacementOverride) -> dict[str, object]:
    """Return what has no column of its own."""
    data: dict[str, object] = {"leaving": str(override.leaving)} if override.leaving else {}
    return data | ({"reapplying": True} if override.reapplying else {})
