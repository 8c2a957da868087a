"""job-migrate's part of the journal: a job is held, and what is wished for it is written down."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from schedhook.journal.errors import JournalError
from schedhook.journal.journal import Journal
from schedhook.roles.request import Request
from schedhook.roles.scheduler import Task
from schedhook.values.log import get_logger
from schedhook.values.model import PlacementOverride, Report
from schedhook_plugins.schedulers.slurm.adapter import Slurm
from schedhook_plugins.schedulers.slurm.migrate import JobMove, reapply

_HOLD_SECONDS = 60
"""How long the agent, or another administrator, may be at work on the job."""

_log = get_logger()


@contextmanager
def locked(journal: Journal | None, job: str) -> Iterator[None]:
    """Be the only one at work on the job, as far as the journal can tell. JobLockedError."""
    with ExitStack() as stack:
        if journal is not None:
            try:
                stack.enter_context(journal.locks.acquire("slurm", job, _HOLD_SECONDS))
            except JournalError as error:
                _log.error("not held", job=job, problem=str(error))
        yield


def finish_interrupted(
    journal: Journal | None, job: str, here: Slurm, carry_out: Callable[[Request], Report]
) -> list[str]:
    """An earlier command may have been killed on the way; what it began has to be whole first."""
    if journal is None:
        return []
    try:
        override = journal.overrides.get("slurm", job)
        if override is None or not override.under_way:
            return []
        known = journal.placements.known_tasks("slurm", job)
        homes = {name: its.home for name, its in known.items()}
        said = reapply(here, job, override, carry_out, homes)
        after = {task.name: task.placement for task in here.tasks(job)}
        with journal.transaction():
            journal.overrides.set("slurm", job, replace(override, leaving=None, reapplying=False))
            journal.placements.record("slurm", job, after)
    except JournalError as error:
        return [f"not known whether an earlier relocation was interrupted: {error}"]
    return [f"an earlier relocation had been interrupted and was finished first: {said}"]


class Keeper:
    """Writes the override and the placements down, so that the agent holds to them: before anything
    changes, so that what is interrupted gets finished, and at the end."""

    def __init__(self, journal: Journal | None, here: Slurm, job: str) -> None:
        self._journal = journal
        self._here = here
        self._job = job
        self._earlier: PlacementOverride | None = None
        self._wish: PlacementOverride | None = None
        self._trouble: JournalError | None = None

    def begin(self, move: JobMove) -> None:
        if self._journal is None:
            return
        try:
            self._earlier = earlier = self._journal.overrides.get("slurm", self._job)
            was = earlier.was if earlier is not None else move.old
            override = PlacementOverride(was=was, placement=move.new, leaving=move.old.cpus)
            owner = self._here.owner(self._job)
            with self._journal.transaction():
                self._journal.runs.record_start("slurm", self._job, owner)
                self._saw(move.before)
                self._journal.overrides.set("slurm", self._job, override)
            self._wish = override
        except JournalError as error:
            self._trouble = error

    def end(self, move: JobMove) -> list[str]:
        """What there is to say about it."""
        if self._journal is None:
            return ["not kept: Slurm's next step in the job takes it back"]
        try:
            if not move.done:
                self.take_back()
            elif self._wish is not None:
                # At once: found arrived, but at its old home, its memory would be moved anew.
                with self._journal.transaction():
                    self._journal.overrides.set(
                        "slurm", self._job, replace(self._wish, leaving=None)
                    )
                    self._saw(move.after)
        except JournalError as error:
            self._trouble = error
        return [f"not kept: {self._trouble}"] if self._trouble is not None else []

    def take_back(self) -> None:
        """Nothing has changed after all."""
        if self._journal is None or self._wish is None:
            return
        if self._earlier is not None:
            self._journal.overrides.set("slurm", self._job, self._earlier)
        else:
            self._journal.overrides.release("slurm", self._job)

    def _saw(self, tasks: Iterable[Task]) -> None:
        assert self._journal is not None
        self._journal.placements.record(
            "slurm", self._job, {task.name: task.placement for task in tasks}
        )
