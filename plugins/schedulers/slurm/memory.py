"""The memory of a job that moves: which tasks go by which map of nodes, planned and carried out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
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
    _gone: dict[str, tuple[Task, NodeSet]] = field(default_factory=dict)
    """The tasks of which memory has moved, and the nodes it went to."""

    def plan(self) -> tuple[Report, ...]:
        """Plan each group. Raise RefusedError if one may not move or all do not fit in turn."""
        reports = tuple(report for _, report in self._relocate_groups(dry_run=True))
        for report in reports:
            if report.outcome in _STOPPING:
                raise RefusedError(_last_note(report))
        if no_room := explain_no_room([report.plan for report in reports if report.plan]):
            raise RefusedError(no_room)
        return reports

    def move(self) -> None:
        """Move each group. Raise SchedhookError if one was refused or failed."""
        for (pairs, tasks), report in self._relocate_groups(dry_run=False):
            self.reports.append(report)
            for task in tasks if report.bytes_moved else ():
                _, nodes = self._gone.get(task.name, (task, NodeSet()))
                self._gone[task.name] = task, nodes | NodeSet(pairs.values())
            if report.outcome in _STOPPING:
                raise RefusedError(f"the memory could not follow: {_last_note(report)}")

    def move_back(self) -> str:
        """Move what has moved to the tasks' processors, and return a line about it, or none.

        Call it once the tasks have their old processors again. That they have them, not a map in
        reverse, tells where memory belongs: on a node that is both old and new, memory that has
        arrived looks like memory that has yet to leave.
        """
        back: list[Report] = []
        while self._gone:
            _, (task, nodes) = self._gone.popitem()
            try:
                report = self._relocate_tasks(Request(home=True, sources=nodes), [task])
            except SchedhookError as error:
                return f"memory stays on its new nodes: {error}"
            if report is None:
                continue
            self.reports.append(report)
            back.append(report)
            if report.outcome in _STOPPING:
                return f"memory stays on its new nodes: {_last_note(report)}"
        if not back:
            return ""
        moved = sum(report.bytes_moved for report in back)
        return f"back again: {describe(moved, left_by_reason(back))}"

    def _relocate_groups(self, *, dry_run: bool) -> Iterator[tuple[_Group, Report]]:
        for group in self.groups:
            pairs, tasks = group
            node_map = NodeMap(pairs=pairs, mapper=MAPPER)
            # A plan is forced: what does not fit now may fit when earlier groups have moved.
            request = Request(node_map=node_map, dry_run=dry_run, force=dry_run)
            report = self._relocate_tasks(request, tasks)
            if report is not None:
                yield group, report

    def _relocate_tasks(self, request: Request, tasks: Iterable[Task]) -> Report | None:
        """Relocate the tasks' living processes; None if none lives."""
        of_job = replace(request, job=self.job, scheduler="slurm")
        pids = [pid for task in tasks for pid in task.pids]
        return call_with_living(pids, partial(self._relocate, of_job), self.root)

    def _relocate(self, request: Request, pids: tuple[int, ...]) -> Report:
        return self.relocate(replace(request, pids=pids))


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
