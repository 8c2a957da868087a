"""job-migrate's part of the journal: the job's lock, and the override that the agent holds to.

The override is written before anything changes, so that a relocation that is interrupted gets
finished: by the agent's next look at the job, or by the next job-migrate. Every function works
without a journal (None), and with one that fails: the job is then moved all the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from schedhook.journal.errors import JournalError
from schedhook.journal.journal import Journal
from schedhook.roles.request import Relocate
from schedhook.roles.scheduler import Task
from schedhook.values.log import get_logger
from schedhook.values.model import PlacementOverride
from schedhook_plugins.schedulers.slurm.adapter import NAME, HostJobs
from schedhook_plugins.schedulers.slurm.migrate import JobMove
from schedhook_plugins.schedulers.slurm.reapply import reapply

_LOCK_SECONDS = 60
"""How long to wait while the agent or another job-migrate works on the job."""

_NOT_RECORDED = "Slurm's next step in the job will undo the move"

_log = get_logger()


@contextmanager
def locked(journal: Journal | None, job: str) -> Iterator[None]:
    """Hold the job's lock for the block; if the journal fails, log it and continue unlocked.

    Raise JobLockedError if the agent or another job-migrate keeps working on the job.
    """
    with ExitStack() as stack:
        if journal is not None:
            try:
                stack.enter_context(journal.locks.acquire(NAME, job, _LOCK_SECONDS))
            except JournalError as error:
                _log.error("cannot lock the job; continuing unlocked", job=job, problem=str(error))
        yield


def finish_interrupted(
    journal: Journal | None, job: str, here: HostJobs, relocate: Relocate
) -> list[str]:
    """Finish what an earlier command began and did not end, and return notes about it.

    Raise SchedhookError if it cannot be finished.
    """
    if journal is None:
        return []
    try:
        override = journal.overrides.get(NAME, job)
        if override is None or not override.under_way:
            return []
        known = journal.placements.known_tasks(NAME, job)
        homes = {task: its.home for task, its in known.items()}
        done = reapply(here, job, override, relocate, homes)
        with journal.transaction():
            journal.overrides.set(NAME, job, replace(override, leaving=None, reapplying=False))
            _record(journal, job, here.tasks(job))
    except JournalError as error:
        return [f"cannot tell whether an earlier relocation was interrupted: {error}"]
    return [f"finished an earlier relocation that was interrupted: {done}"]


class OverrideRecorder:
    """Records one job-migrate in the journal: before anything changes, and when it has ended."""

    def __init__(self, journal: Journal | None, here: HostJobs, job: str) -> None:
        self._journal = journal
        self._here = here
        self._job = job
        self._earlier: PlacementOverride | None = None
        self._recorded: PlacementOverride | None = None
        self._error: JournalError | None = None

    def begin(self, move: JobMove) -> None:
        """Record where the job is and where it is going to."""
        if self._journal is None:
            return
        try:
            self._earlier = earlier = self._journal.overrides.get(NAME, self._job)
            was = earlier.was if earlier is not None else move.old
            override = PlacementOverride(was=was, placement=move.new, leaving=move.old.cpus)
            owner = self._here.owner(self._job)
            about = self._here.describe(self._job)
            with self._journal.transaction():
                self._journal.runs.record_start(NAME, self._job, owner)
                if about is not None:
                    self._journal.runs.describe(NAME, self._job, about.alias, about.name)
                _record(self._journal, self._job, move.before)
                self._journal.overrides.set(NAME, self._job, override)
            self._recorded = override
        except JournalError as error:
            self._error = error

    def end(self, move: JobMove) -> list[str]:
        """Record that the job has arrived, or roll back, and return notes about what failed."""
        if self._journal is None:
            return [f"override not recorded, no journal is open: {_NOT_RECORDED}"]
        try:
            if not move.done:
                self.roll_back()
            elif self._recorded is not None:
                # In one transaction: if the job had arrived but its tasks' homes were still the
                # old ones, their memory would be moved again.
                with self._journal.transaction():
                    arrived = replace(self._recorded, leaving=None)
                    self._journal.overrides.set(NAME, self._job, arrived)
                    _record(self._journal, self._job, move.after)
        except JournalError as error:
            self._error = error
        if self._error is None:
            return []
        return [f"override not recorded ({self._error}): {_NOT_RECORDED}"]

    def roll_back(self) -> None:
        """Put the override of before back: the job was not moved. Raise JournalError."""
        if self._journal is None or self._recorded is None:
            return
        if self._earlier is not None:
            self._journal.overrides.set(NAME, self._job, self._earlier)
        else:
            self._journal.overrides.release(NAME, self._job)


def _record(journal: Journal, job: str, tasks: Iterable[Task]) -> None:
    journal.placements.record(NAME, job, {task.name: task.placement for task in tasks})
