"""What the work on events reads from the journal and writes to it, also while the journal fails.

A full disk must cost the record, not the job: what cannot be written is logged and, as far as the
work depends on it, kept in memory.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TypeVar

from schedhook.journal.errors import JournalError
from schedhook.journal.journal import Journal
from schedhook.journal.placements import KnownTask
from schedhook.journal.runs import JobRun
from schedhook.values.log import get_logger
from schedhook.values.model import Placement

_T = TypeVar("_T")

_log = get_logger()


class Records:
    """An open journal, for several threads."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self._lock = threading.Lock()
        self._unsaved: dict[tuple[str, str], dict[str, KnownTask]] = {}
        """(scheduler, job) → what the journal could not take."""

    def ask(self, read: Callable[[], _T], default: _T) -> _T:
        """Return what `read` finds in the journal, or `default` if it cannot be read."""
        try:
            return read()
        except JournalError as error:
            _log.error("journal not readable", problem=str(error))
            return default

    def write(self, write: Callable[[], object]) -> str | None:
        """Write in the journal; return None, or one line about why it failed."""
        try:
            write()
        except JournalError as error:
            _log.error("not in the journal", problem=str(error))
            return f"not in the journal: {error}"
        return None

    @contextmanager
    def locked(self, scheduler: str, job: str, wait: float = 0) -> Iterator[None]:
        """Hold the job's lock for the block; if the journal fails, log it and continue unlocked.

        Raise JobLockedError if another process still holds it after `wait` seconds.
        """
        with ExitStack() as stack:
            try:
                stack.enter_context(self.journal.locks.acquire(scheduler, job, wait))
            except JournalError as error:
                _log.error("job not locked", job=job, problem=str(error))
            yield

    def run(self, scheduler: str, job: str) -> JobRun | None:
        """Return the job's latest run, None if the journal has none."""
        return self.ask(lambda: self.journal.runs.latest(scheduler, job), None)

    def open_runs(
        self, scheduler: str | None = None, *, unsettled_only: bool = False
    ) -> tuple[JobRun, ...]:
        """Return the runs that have not ended; see `Runs.list_open`."""
        none: tuple[JobRun, ...] = ()
        runs = self.journal.runs
        return self.ask(lambda: runs.list_open(scheduler, unsettled_only=unsettled_only), none)

    def known(self, scheduler: str, job: str) -> dict[str, KnownTask]:
        """Return what is known of each of the job's tasks."""
        with self._lock:
            unsaved = self._unsaved.get((scheduler, job))
        if unsaved is not None:
            return unsaved
        return self.ask(lambda: self.journal.placements.known_tasks(scheduler, job), {})

    def homes(self, scheduler: str, job: str) -> dict[str, Placement]:
        """Return where each task's memory was brought to last."""
        return {name: task.home for name, task in self.known(scheduler, job).items()}

    def bindings(self, scheduler: str, job: str, tasks: Collection[str]) -> dict[str, Placement]:
        """Return the most recent bindings of these tasks; see `Placements.bindings`."""
        with self._lock:
            unsaved = self._unsaved.get((scheduler, job))
        if unsaved is not None:
            return {name: task.last for name, task in unsaved.items() if name in tasks}
        return self.ask(lambda: self.journal.placements.bindings(scheduler, job, tasks), {})

    def remember(
        self,
        scheduler: str,
        job: str,
        at_home: Mapping[str, Placement],
        away: Mapping[str, Placement],
    ) -> None:
        """Record the tasks' placements, all with one time.

        The memory of those `at_home` is on the nodes of their placement; that of those `away` may
        be on them by now.
        """
        if not at_home and not away:
            return
        at = time.time()
        try:
            with self.journal.transaction():
                self.journal.placements.record(scheduler, job, at_home, at=at)
                self.journal.placements.record(scheduler, job, away, settled=False, at=at)
        except JournalError as error:
            _log.error("not in the journal", job=job, problem=str(error))
        else:
            with self._lock:
                if (scheduler, job) not in self._unsaved:
                    return
        known = self.known(scheduler, job)
        for tasks, settled in ((at_home, True), (away, False)):
            now = {
                name: KnownTask.after(known.get(name), placement, settled)
                for name, placement in tasks.items()
            }
            known = known | now
        with self._lock:
            self._unsaved[scheduler, job] = known

    def forget(self, scheduler: str, job: str) -> None:
        """Drop what is kept in memory of a job that has ended."""
        with self._lock:
            self._unsaved.pop((scheduler, job), None)
