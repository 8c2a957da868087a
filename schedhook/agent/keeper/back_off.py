"""Back-off: memory that does not stay where it was brought is brought there less and less often.

A memory policy, NUMA balancing, a driver or the program itself may take it away again, and some of
it may never come along.
"""

from __future__ import annotations

from dataclasses import dataclass

_FIRST_WAIT = 300.0
_LONGEST_WAIT = 86_400.0
_FORGIVEN_AFTER = 4
"""Memory that stays for so many times the latest wait has settled."""
_LEFT_SHARE = 0.5
"""Of what was moved: if so much has gone again, the memory counts as having left."""


@dataclass(slots=True)
class BackOff:
    """How often a job's memory did not stay. Sizes are bytes, times seconds of one clock."""

    failures: int = 0
    """How often in a row it left again or did not come along."""
    until: float = 0.0
    """It must not be moved before this time."""
    _wait: float = 0.0
    _moved: int = 0
    """What came home by the latest move, until it has left again."""
    _local: int = 0
    """What was local after that move."""
    _at: float = 0.0

    def note_move(self, moved: int, left: int, local: int, now: float) -> None:
        """Note that `moved` bytes came home, `left` did not, and `local` are at home now."""
        if left > moved:
            self._fail(now)
            return
        self._moved, self._local, self._at = moved, local, now

    def note_reading(self, off_node: int, local: int, now: float) -> bool:
        """Note where the memory is; return whether what was moved last has left again.

        Memory that the job has allocated off-node since then has not left: what was local still is.
        """
        if not self._moved:
            return False
        gone = min(self._local - local, off_node)
        if gone >= self._moved * _LEFT_SHARE:
            self._moved = 0
            self._fail(now)
            return True
        if now - self._at > _FORGIVEN_AFTER * max(self._wait, _FIRST_WAIT):
            self._moved = self.failures = 0
        return False

    def _fail(self, now: float) -> None:
        self.failures += 1
        # The exponent is limited, since 2.0**1024 overflows.
        self._wait = min(_LONGEST_WAIT, _FIRST_WAIT * 2.0 ** min(self.failures - 1, 20))
        self.until = now + self._wait
