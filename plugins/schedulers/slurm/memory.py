"""The memory of a job that moves: which tasks go by which map of nodes, planned and carried out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from schedhook.host.vanishing import call_with_living
from schedhook.roles.request import Relocate, Request
from schedhook.roles.scheduler import Task
from schedhook.values.errors import RefusedError
from schedhook.values.fit import explain_no_room
from schedhook.values.model import NodeMap, Outcome, Report

MAPPER = "processors"
"""The mapper's name in reports: pairs of nodes that follow from pairs of processors."""

MIB = 1 << 20
_STOPPING = frozenset({Outcome.REFUSED, Outcome.FAILED})


@dataclass(slots=True)
class JobMemory:
    """The memory of a job's tasks, in groups that each move by one map."""

    job: str
    root: Path
    relocate: Relocate
    groups: Sequence[tuple[Mapping[int, int], Sequence[Task]]]
    """(old node → new node, the tasks whose memory goes so), in the order in which they move."""
    reports: list[Report] = field(default_factory=list)
    """What `move` did, one report for each group so far."""

    def plan(self) -> tuple[Report, ...]:
        """Plan each group. Raise RefusedError if one may not move or all do not fit in turn."""
        reports = tuple(self._relocate_groups(dry_run=True))
        for report in reports:
            if report.outcome in _STOPPING:
                raise RefusedError(_last_note(report))
        if no_room := explain_no_room([report.plan for report in reports if report.plan]):
            raise RefusedError(no_room)
        return reports

    def move(self) -> None:
        """Move each group. Raise SchedhookError if one was refused or failed."""
        for report in self._relocate_groups(dry_run=False):
            self.reports.append(report)
            if report.outcome in _STOPPING:
                raise RefusedError(f"the memory could not follow: {_last_note(report)}")

    def _relocate_groups(self, *, dry_run: bool) -> Iterator[Report]:
        for pairs, tasks in self.groups:
            request = Request(
                job=self.job,
                scheduler="slurm",
                node_map=NodeMap(pairs=pairs, mapper=MAPPER),
                dry_run=dry_run,
                force=dry_run,  # what does not fit now may fit when earlier groups have moved
            )
            pids = [pid for task in tasks for pid in task.pids]
            report = call_with_living(pids, partial(self._relocate, request), self.root)
            if report is not None:
                yield report

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
