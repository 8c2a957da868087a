"""Overrides: placements that hold although the scheduler goes on writing another one."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import replace

from schedhook.agent.job import Job, placements
from schedhook.agent.results import Step
from schedhook.roles.scheduler import Task
from schedhook.values.errors import RefusedError
from schedhook.values.model import PlacementOverride
from schedhook.values.sets import CpuSet

_WAIT_SECONDS = 30.0
"""How long an override waits for a step that is starting."""
_STEP_SECONDS = 0.5
"""Between two looks at whether a step has started."""


class StartingSteps:
    """Since when work on jobs has been put off because a step is starting, for several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._since: dict[tuple[str, str], float] = {}

    def waits(self, scheduler: str, job: str, starting: bool) -> bool:
        """Return whether work on the job must wait, given whether a step of it is starting now.

        After 30 seconds it waits no longer.
        """
        with self._lock:
            if not starting:
                self._since.pop((scheduler, job), None)
                return False
            now = time.monotonic()
            if now - self._since.setdefault((scheduler, job), now) < _WAIT_SECONDS:
                return True
            del self._since[scheduler, job]
            return False

    def forget(self, scheduler: str, job: str) -> None:
        """Drop what is known of a job that has ended."""
        with self._lock:
            self._since.pop((scheduler, job), None)


def keep_override(job: Job, tasks: Sequence[Task], starting: StartingSteps) -> Step:
    """If the scheduler has undone the job's override, reapply it.

    If that has to wait, memory must not follow to the scheduler's CPUs meanwhile. An override is
    dropped if the job has CPUs that neither it nor the scheduler named.
    """
    records = job.records
    override = records.ask(lambda: records.journal.overrides.get(job.scheduler, job.name), None)
    if override is None:
        return Step()
    outside = CpuSet(cpu for task in tasks for cpu in task.placement.cpus - override.placement.cpus)
    if not outside and not override.under_way:
        return Step()
    if outside - override.was.cpus - (override.leaving or CpuSet()):
        records.journal.overrides.release(job.scheduler, job.name)
        return Step(lines=(f"job moved to CPUs {outside} by another process; override dropped",))
    if not job.adapter.can_reapply:
        return Step()
    if not _waits(job, starting):
        try:
            return _reapply(job, override, tasks)
        except RefusedError:
            if not _waits(job, starting):
                raise
            # It was put back, since a step began to start meanwhile.
    line = "waiting for a step to start"
    return Step(lines=(line,), waits=True, retry_after=_STEP_SECONDS)


def _waits(job: Job, starting: StartingSteps) -> bool:
    return starting.waits(job.scheduler, job.name, job.adapter.starting(job.name))


def _reapply(job: Job, override: PlacementOverride, tasks: Sequence[Task]) -> Step:
    # Recorded before anything changes: if this process is killed, the next look finishes it.
    homes = job.records.homes(job.scheduler, job.name)
    new = [
        task
        for task in tasks
        if task.name not in homes and task.placement.cpus <= override.was.cpus
    ]
    _write(job, replace(override, reapplying=True), new)
    homes = job.records.homes(job.scheduler, job.name)
    lines = [job.adapter.reapply(job.name, override, job.relocate, homes)]
    if override.under_way:
        lines.append("which finishes what was interrupted")
    tasks = job.tasks()
    _write(job, replace(override, leaving=None, reapplying=False), tasks)
    job.remember(placements(tasks))
    return Step(lines=tuple(lines))


def _write(job: Job, override: PlacementOverride, at_home: Sequence[Task]) -> None:
    """Record the override and the placements of tasks whose memory is there.

    Nothing is recorded if the override has been released, or the job has ended, meanwhile.
    """
    journal = job.records.journal

    def write() -> None:
        with journal.transaction():
            if journal.overrides.get(job.scheduler, job.name) is not None:
                journal.overrides.set(job.scheduler, job.name, override)
                journal.placements.record(job.scheduler, job.name, placements(at_home))

    job.records.write(write)
