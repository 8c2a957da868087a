"""Placements of jobs' tasks, in the order in which they were recorded."""

from __future__ import annotations

import itertools
import sqlite3
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from schedhook.journal import columns
from schedhook.journal.database import Database
from schedhook.journal.runs import OPEN_RUN, ensure_open_run
from schedhook.values.model import Placement
from schedhook.values.sets import CpuSet, NodeSet


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownTask:
    """What is known of one task's placement."""

    home: Placement
    """The last placement that the task's memory was brought to, or first found on."""
    last: Placement
    """The last placement that was recorded."""
    visited: NodeSet
    """Nodes that the task could use since it was last at home, so that pages may be there too."""

    @classmethod
    def after(cls, before: KnownTask | None, placement: Placement, settled: bool) -> KnownTask:
        """Return what is known after this placement; `settled`: the memory is there too."""
        if settled or before is None:
            return cls(home=placement, last=placement, visited=NodeSet())
        visited = before.visited | placement.nodes
        return cls(home=before.home, last=placement, visited=visited)

    def old_nodes(self, new: NodeSet) -> NodeSet:
        """Return the nodes from which the task's memory must come, now that its nodes are `new`.

        They include nodes of `new` whose memory a node map may have to move on.
        """
        old = self.home.nodes | (self.visited - new)
        if self.visited and self.last.nodes == new:
            # It may have been begun: memory on nodes that are old and new may have arrived.
            old = old - new
        return old


class TaskPlacement(NamedTuple):
    """A row of `placements`."""

    at: float
    task: str
    placement: Placement
    settled: bool
    """The task's memory is on the placement's nodes."""


class Placements:
    """The table `placements`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def record(
        self,
        scheduler: str,
        job: str,
        tasks: Mapping[str, Placement],
        *,
        settled: bool = True,
        at: float | None = None,
    ) -> None:
        """Record the tasks' placements, except those that are recorded last already.

        `settled`: the tasks' memory is there too. A job without an open run gets one.
        """
        at = time.time() if at is None else at
        with self._database.write() as db:
            run = ensure_open_run(db, scheduler, job, at)
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

    def known_tasks(self, scheduler: str, job: str) -> dict[str, KnownTask]:
        """Return what is known of each task of the open run; empty if there is none."""
        result: dict[str, KnownTask] = {}
        for row in self._of_open_run(scheduler, job):
            result[row.task] = KnownTask.after(result.get(row.task), row.placement, row.settled)
        return result

    def bindings(self, scheduler: str, job: str, tasks: Collection[str]) -> dict[str, Placement]:
        """Return the most recent bindings of these tasks of the open run.

        Those are the tasks' placements when at least one of them was last restricted to fewer CPUs
        than all of them have together. Empty if none ever was.
        """
        last: dict[str, Placement] = {}
        bound: dict[str, Placement] = {}
        of_these = (row for row in self._of_open_run(scheduler, job) if row.task in tasks)
        for _, at_once in itertools.groupby(of_these, key=lambda row: row.at):
            last |= {row.task: row.placement for row in at_once}
            together = CpuSet(cpu for each in last.values() for cpu in each.cpus)
            if any(each.cpus < together for each in last.values()):
                bound = dict(last)
        return bound

    def _of_open_run(self, scheduler: str, job: str) -> list[TaskPlacement]:
        which = f"WHERE run = {OPEN_RUN} ORDER BY id"
        with self._database.read():
            return self._database.rows.read(
                "placements", parse_task_placement, which, (scheduler, job)
            )


def parse_task_placement(row: sqlite3.Row) -> TaskPlacement:
    """Return the value of a row of `placements`."""
    return TaskPlacement(
        at=columns.timestamp(row, "at"),
        task=columns.text(row, "task"),
        placement=columns.placement(row, "cpus", "nodes"),
        settled=bool(columns.integer(row, "settled")),
    )
