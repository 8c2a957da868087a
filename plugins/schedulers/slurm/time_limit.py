"""How long a job may still run: from its tasks' environment, else from Slurm's controller.

The controller is asked about one job once in ten minutes at most, and only by a caller that is
about to move the job's memory.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable

from schedhook.values.errors import SchedhookError
from schedhook_plugins.schedulers.slurm.queries import SECONDS, RunCommand, within

_ASK_AGAIN = 600.0
_FORMAT = "%A|%L"
"""squeue --format: the job's number and the time that it has left."""
_LEFT = re.compile(r"(?:([0-9]+)-)?(?:([0-9]+):)?([0-9]+):([0-9]+)")


def parse_time_left(text: str) -> float | None:
    """Return the seconds in squeue's `2-03:04:05`, `3:04:05` or `4:05`; None for UNLIMITED etc."""
    found = _LEFT.fullmatch(text.strip())
    if found is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)


class TimeLimits:
    """The ends of jobs as Slurm has told them, for several threads."""

    def __init__(
        self,
        run: Callable[[], RunCommand] = lambda: within(SECONDS),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._run = run
        self._clock = clock
        self._lock = threading.Lock()
        self._told: dict[str, tuple[float, float | None]] = {}
        """Job → when the controller was asked, and when the job ends; None: it did not say."""

    def left(self, job: str) -> float | None:
        """Return the seconds until the job's limit, None if it has none or Slurm does not say."""
        now = self._clock()
        with self._lock:
            asked, end = self._told.get(job, (float("-inf"), None))
        if now - asked >= _ASK_AGAIN:
            left = self._ask(job)
            now = self._clock()
            end = None if left is None else now + left
            with self._lock:
                fresh = {j: told for j, told in self._told.items() if now - told[0] < _ASK_AGAIN}
                self._told = {**fresh, job: (now, end)}
        return None if end is None else max(0.0, end - now)

    def _ask(self, job: str) -> float | None:
        try:
            answer = self._run()(["squeue", "--noheader", f"--jobs={job}", f"--format={_FORMAT}"])
        except SchedhookError:
            return None
        rows = (line.strip().partition("|") for line in answer.output.splitlines())
        return next((parse_time_left(left) for number, _, left in rows if number == job), None)
