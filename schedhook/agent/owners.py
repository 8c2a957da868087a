"""Find out which user a job belongs to, so that users can only report events of their own jobs."""

from __future__ import annotations

import time

from schedhook.journal.errors import JournalError
from schedhook.journal.journal import Journal
from schedhook.roles.scheduler import Scheduler
from schedhook.values.log import get_logger

_log = get_logger()

_CACHE_SECONDS = 10.0
"""How long an owner that was read from a job's processes is believed: reading them is expensive."""
_MAX_CACHED = 1000


class JobOwners:
    """Looks up owners of jobs in the journal, then among the jobs' processes. Not thread-safe."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._cache: dict[tuple[str, str], tuple[float, int | None]] = {}
        """(scheduler, job) → (when the entry expires, user id)."""

    def owner(self, adapter: Scheduler, job: str) -> int | None:
        """Return the job's owner as root's hooks reported it, else as its processes show it.

        None if the owner is not known.
        """
        reported = self._reported_owner(adapter.name, job)
        if reported is not None:
            return reported
        key, now = (adapter.name, job), time.monotonic()
        expires, owner = self._cache.get(key, (0.0, None))
        if now >= expires:
            if len(self._cache) >= _MAX_CACHED:
                self._cache.clear()
            owner = adapter.owner(job)
            self._cache[key] = now + _CACHE_SECONDS, owner
        return owner

    def _reported_owner(self, scheduler: str, job: str) -> int | None:
        try:
            run = self._journal.runs.latest(scheduler, job)
        except JournalError as error:
            _log.error("cannot read the journal", problem=str(error))
            return None
        return run.user if run is not None and run.hooked and run.ended is None else None
