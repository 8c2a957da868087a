"""The memory of a job that moves: which tasks go by which map of nodes, planned and carried out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from schedhook.host.vanishing import call_with_living
from schedhook.roles.request import Relocate, Request
from schedhook.roles.scheduler import Task
from schedhook.values.errors import RefusedError, SchedhookError
from schedhook.values.fit import explain_no_room
from schedhook.values.model import NodeMap, Outcome, Report
from schedhook.values.sets import NodeSet

MAPPER = "processors"
"""The mapper's name in reports: pairs of nodes that follow from pairs of processors."""

MIB = 1 << 20
_STOPPING = frozenset({Outcome.REFUSED, Outcome.FAILED})


_Group = tuple[Mapping[int, int], Sequence[Task]]
"""(old node → new node, the tasks whose memory goes so)."""


@dataclass(slots=True)
class JobMemory:
    """The memory of a job's tasks, in groups that each move by one map."""

    job: str
    root: Path
    relocate: Relocate
    groups: Sequence[_Group]
    """In the order in which they move."""
    reports: list[Report] = field(default_factory=list)
    """What `move` and `move_back` did, one report for each group so far."""
    _gone: dict[str, tuple[Task, dict[int, int]]] = field(default_factory=dict)
    """The tasks of which memory may have moved, and old node → new node."""

    def plan(self) -> tuple[Report, ...]:
        """Plan each group. Raise RefusedError if one may not move or all do not fit in turn."""
        planned = (self._relocate_group(group, dry_run=True) for group in self.groups)
        reports = tuple(report for report in planned if report is not None)
        for report in reports:
            if report.outcome in _STOPPING:
                raise RefusedError(_last_note(report))
        if no_room := explain_no_room([report.plan for report in reports if report.plan]):
            raise RefusedError(no_room)
        return reports

    def move(self) -> None:
        """Move each group. Raise SchedhookError if one was refused or failed."""
        for group in self.groups:
            pairs, tasks = group
            before = dict(self._gone)
            # Ahead of the move, of which an interruption leaves no report.
            for task in tasks:
                _, gone = self._gone.get(task.name, (task, {}))
                self._gone[task.name] = task, {**gone, **pairs}
            report = self._relocate_group(group, dry_run=False)
            moved = {each.pid for each in report.processes if each.bytes_moved} if report else set()
            for task in tasks:
                if moved.isdisjoint(task.pids):
                    del self._gone[task.name]
            self._gone = before | self._gone
            if report is None:
                continue
            self.reports.append(report)
            if report.outcome in _STOPPING:
                raise RefusedError(f"the memory could not follow: {_last_note(report)}")

    def move_back(self) -> str:
        """Move what has moved back again, and return a line about it, or none.

        Call it once the tasks have their old processors again.
        """
        back: list[Report] = []
        problems: list[str] = []
        while self._gone:
            _, (task, pairs) = self._gone.popitem()
            try:
                report = self._relocate_tasks(_way_back(pairs), [task])
            except SchedhookError as error:
                problems.append(str(error))
                continue
            if report is None:
                continue
            self.reports.append(report)
            back.append(report)
            if report.outcome in _STOPPING:
                problems.append(_last_note(report))
        said = []
        moved = sum(report.bytes_moved for report in back)
        if moved or (back and not problems):
            said.append(f"back again: {describe(moved, left_by_reason(back))}")
        if problems:
            said.append(f"memory stays on its new nodes: {problems[0]}")
        return "; ".join(said)

    def _relocate_group(self, group: _Group, *, dry_run: bool) -> Report | None:
        pairs, tasks = group
        node_map = NodeMap(pairs=pairs, mapper=MAPPER)
        # A plan is forced: what does not fit now may fit when earlier groups have moved.
        request = Request(node_map=node_map, dry_run=dry_run, force=dry_run)
        return self._relocate_tasks(request, tasks)

    def _relocate_tasks(self, request: Request, tasks: Iterable[Task]) -> Report | None:
        """Relocate the tasks' living processes; None if none lives."""
        of_job = replace(request, job=self.job, scheduler="slurm")
        pids = [pid for task in tasks for pid in task.pids]
        return call_with_living(pids, partial(self._relocate, of_job), self.root)

    def _relocate(self, request: Request, pids: tuple[int, ...]) -> Report:
        return self.relocate(replace(request, pids=pids))


def _way_back(pairs: Mapping[int, int]) -> Request:
    """Return the request that brings memory back which has gone by this map.

    On a node that is both old and new, memory that has arrived looks like memory that has yet to
    leave, and two old nodes may have one new one: then the task's processors tell where it belongs.
    """
    moves = {old: new for old, new in pairs.items() if old != new}
    back = {new: old for old, new in moves.items()}
    if len(back) == len(moves) and back.keys().isdisjoint(pairs):
        return Request(node_map=NodeMap(pairs=back, mapper=MAPPER))
    return Request(home=True, sources=NodeSet(back))


def _last_note(report: Report) -> str:
    return report.notes[-1] if report.notes else report.outcome.value


def left_by_reason(reports: Iterable[Report]) -> dict[str, int]:
    """Return the bytes that stayed, by reason, over all reports."""
    total: dict[str, int] = {}
    for report in reports:
        for reason, size in report.left_by_reason.items():
            total[reason] = total.get(reason, 0) + size
    return total


def describe(moved: int, left: Mapping[str, int]) -> str:
    """Return `moved 100.0 MiB, left 3.0 MiB (hidden)`; `left` is bytes by reason."""
    line = f"moved {moved / MIB:.1f} MiB, left {sum(left.values()) / MIB:.1f} MiB"
    return f"{line} ({', '.join(left)})" if left else line
