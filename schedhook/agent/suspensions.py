"""Since when jobs are suspended: gang scheduling suspends and resumes them again and again."""

from __future__ import annotations

import threading
import time

from schedhook.roles.scheduler import EventKind
from schedhook.values.model import Event

_ENDS = frozenset({EventKind.RESUMING, EventKind.RESUMED, EventKind.JOB_ENDED})


class Suspensions:
    """The times of jobs' latest suspensions, for several threads. They end with this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._since: dict[tuple[str, str], float] = {}
        """(scheduler, job) → a time of time.monotonic()."""

    def note(self, event: Event, kind: EventKind) -> float:
        """Note what an event says; return for how many seconds its job has been suspended.

        That is 0 if it is not known to be. An event that is handled again begins no suspension.
        """
        job = event.scheduler, event.job
        with self._lock:
            if kind in _ENDS:
                self._since.pop(job, None)
            elif kind is EventKind.SUSPENDED:
                now = time.monotonic()
                if not event.data.get("again"):
                    self._since[job] = now
                return now - self._since.setdefault(job, now)
        return 0.0
