"""A job that an event is about, and moving its tasks' memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

from schedhook.agent.budget import MoveBudget
from schedhook.agent.events import TRIED
from schedhook.agent.keeper.keeper import JobKey, Keeper
from schedhook.agent.records import Records
from schedhook.agent.results import Step
from schedhook.host.vanishing import call_with_living
from schedhook.journal.placements import KnownTask
from schedhook.roles.request import Relocate, Request
from schedhook.roles.scheduler import EventKind, Scheduler, Task
from schedhook.values.actions import Actions
from schedhook.values.model import Event, Outcome, Placement, Plan, Report
from schedhook.values.reasons import Reason

SETTLED = frozenset({Outcome.COMPLETE, Outcome.NOTHING_TO_DO, Outcome.PARTIAL})
"""Outcomes after which a job's memory counts as being where it was to go."""
_PASSING = frozenset({Reason.BUSY.value, Reason.NO_MEMORY.value, Reason.APPEARED.value})
"""Reasons why pages stay that may not last."""
_MOST_TRIES = 3
"""So many times a relocation is tried that leaves pages for such a reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job, the event that is about it, and what the work on it needs."""

    event: Event
    kind: EventKind
    adapter: Scheduler
    actions: Actions
    records: Records
    relocate: Relocate
    """The pipeline; it records its reports for this job."""
    rebalance: Callable[[Sequence[Request]], Sequence[Report]]
    """Brings memory of several jobs home together; it records the report of each."""
    open_other: Callable[[str, str], AbstractContextManager[Job]]
    """Opens another job, (scheduler, job), held for the block; raises JobLockedError."""
    retry_s: float
    """Seconds after which a relocation that was refused is tried again."""
    budget: MoveBudget
    """The moves that no hook asked for."""
    suspended_s: float = 0.0
    """Seconds for which the job has been suspended, if the event says that it is."""
    keeper: Keeper | None = None
    """What keep_local knows, in an agent that watches jobs."""
    root: Path = Path("/")

    @property
    def scheduler(self) -> str:
        """The scheduler's name."""
        return self.event.scheduler

    @property
    def name(self) -> str:
        """The job's id."""
        return self.event.job

    @property
    def key(self) -> JobKey:
        """The job's scheduler and id."""
        return self.scheduler, self.name

    def tasks(self) -> tuple[Task, ...]:
        """Return the job's tasks as they are now."""
        return self.adapter.tasks(self.name)

    def known(self) -> dict[str, KnownTask]:
        """Return what the journal knows of each task."""
        return self.records.known(self.scheduler, self.name)

    def remember(
        self, at_home: Mapping[str, Placement], away: Mapping[str, Placement] | None = None
    ) -> None:
        """Record placements; see `Records.remember`."""
        self.records.remember(self.scheduler, self.name, at_home, away or {})

    def record_description(self) -> None:
        """Record what people call the job, if the adapter knows it by now."""
        about = self.adapter.describe(self.name)
        if about is not None:
            runs = self.records.journal.runs
            self.records.write(
                lambda: runs.describe(self.scheduler, self.name, about.alias, about.name)
            )


def is_from_hook(event: Event) -> bool:
    """Return whether a hook of the scheduler sent the event, so that all of it can be believed.

    Others come from the watcher, from users, or again because a part of the work failed.
    """
    return "seen_by" not in event.data


def may_try_again(job: Job, report: Report) -> bool:
    """Return whether what a relocation left may move at another try, and one is due."""
    tried = job.event.data.get(TRIED, 0)
    return (
        report.outcome is Outcome.PARTIAL
        and (report.not_answering or not _PASSING.isdisjoint(report.left_by_reason))
        and (tried if isinstance(tried, int) else 0) + 1 < _MOST_TRIES
    )


def placements(tasks: Sequence[Task]) -> dict[str, Placement]:
    """Return each task's placement by its name."""
    return {task.name: task.placement for task in tasks}


def move(job: Job, tasks: Sequence[Task], request: Request) -> tuple[Report | None, Step]:
    """Relocate the memory of these tasks' processes; report None if none of them lives any more."""
    pids = [pid for task in tasks for pid in task.pids]
    request = replace(request, job=job.name, scheduler=job.scheduler)
    report = call_with_living(
        pids, lambda living: job.relocate(replace(request, pids=living)), job.root
    )
    if report is None:
        return None, Step()
    names = ", ".join(task.name for task in tasks)
    settled = report.outcome in SETTLED
    return report, Step(lines=(f"{names}: {report.summary()}",), ok=settled)


def make_plan(job: Job, tasks: Sequence[Task], request: Request) -> Plan | None:
    """Return what the request would move of these tasks' memory; None if none of them lives."""
    pids = [pid for task in tasks for pid in task.pids]
    dry = replace(request, job=job.name, scheduler=job.scheduler, dry_run=True, force=True)
    report = call_with_living(
        pids, lambda living: job.relocate(replace(dry, pids=living)), job.root
    )
    return report.plan if report else None
