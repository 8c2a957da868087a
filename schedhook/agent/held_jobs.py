"""The jobs that this agent's threads work on.

A thread works on the job of its event, and keep_local on others too, which trade places with it.
The journal's locks keep other processes away, not other threads.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from schedhook.journal.errors import JobLockedError


class HeldJobs:
    """Jobs by (scheduler, job), each held by one thread at a time."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._held: set[tuple[str, str]] = set()

    @contextmanager
    def hold(self, scheduler: str, job: str, wait: float = 0) -> Iterator[None]:
        """Hold a job for the block.

        Raise JobLockedError if another thread still holds it after `wait` seconds.
        """
        key, end = (scheduler, job), time.monotonic() + wait
        with self._changed:
            while key in self._held:
                if not self._changed.wait(end - time.monotonic()):
                    raise JobLockedError(f"the agent is moving memory of job {job}: wait for it")
            self._held.add(key)
        try:
            yield
        finally:
            with self._changed:
                self._held.remove(key)
                self._changed.notify_all()
