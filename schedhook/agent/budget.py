"""How often the agent moves a job's memory because the job, or its user, has changed something.

Anybody can bind their own processes, or stop them, every few seconds, and each time all of the
job's memory would follow. So such moves have a budget, which grows back while the job is left
alone. What the scheduler's hooks report has none.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from schedhook.values.config import WatchSection

_SHARE = 0.05
"""At most this share of the time goes into moves that come one after the other."""
_QUIET = 10
"""After so many times the last pause without a move, earlier ones no longer count."""

_JobKey = tuple[str, str]


@dataclass(slots=True)
class _Moves:
    """The moves of one job. Times are of time.monotonic()."""

    count: int = 0
    next_at: float = 0.0
    forgotten_at: float = 0.0
    is_told: bool = False


class MoveBudget:
    """The budgets of all jobs, for several threads. They end with this process."""

    def __init__(self, section: WatchSection) -> None:
        self._section = section
        self._lock = threading.Lock()
        self._by_job: dict[_JobKey, _Moves] = {}

    def wait(self, job: _JobKey) -> float:
        """Return the seconds until the job's memory may move again; 0 if it may now."""
        now = time.monotonic()
        with self._lock:
            moves = self._by_job.get(job)
            if moves is not None and now >= moves.forgotten_at:
                del self._by_job[job]
            return max(0.0, moves.next_at - now) if moves else 0.0

    def spend(self, job: _JobKey, seconds: float) -> None:
        """Count a move that has just ended, after so many seconds."""
        section, now = self._section, time.monotonic()
        if not section.move_pause_s:
            return
        with self._lock:
            moves = self._by_job.setdefault(job, _Moves())
            moves.count += 1
            doublings = moves.count - section.moves_at_once
            pause = section.move_pause_s
            if doublings >= 0:
                pause *= 2.0 ** min(doublings, 32)
                pause = min(max(pause, seconds / _SHARE), section.longest_move_pause_s)
                moves.next_at = now + pause
            moves.forgotten_at = now + _QUIET * pause

    def tell(self, job: _JobKey) -> bool:
        """Return whether this is the first call since the job's moves were last forgotten."""
        with self._lock:
            moves = self._by_job.get(job)
            is_first = moves is not None and not moves.is_told
            if moves is not None:
                moves.is_told = True
            return is_first

    def forget(self, job: _JobKey) -> None:
        """Forget a job that has ended."""
        with self._lock:
            self._by_job.pop(job, None)
