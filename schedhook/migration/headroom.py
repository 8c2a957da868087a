"""The room on the destinations, watched while memory moves.

Each thread of a move takes room before it moves pages, so together the threads bring no more than
there was room for at the last reading. The next reading shows what other processes have allocated.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from schedhook.values.room import Room
from schedhook.values.sets import NodeSet

ReadRooms = Callable[[], Sequence[Room]]
"""Returns the rooms of the host, read now; see schedhook.values.room.find_rooms."""

Moves = frozenset[tuple[int, int]]
"""Pairs of an old node and a new one."""

_SHARE = 0.05
"""The share of a move's time that readings may take, unless room is short."""
_LEAST_SECONDS = 0.02
"""The least time between two readings."""


class Headroom:
    """How many bytes may still arrive; for several threads."""

    def __init__(self, read: ReadRooms = tuple) -> None:
        """Without `read` there is no limit."""
        self.read = read
        self._lock = threading.Lock()
        self._rooms: Sequence[Room] = ()
        self._spare: dict[NodeSet, int] = {}
        self._coming: dict[Moves, int] = {}
        """Bytes that were taken and have not all arrived."""
        self._read_at = -math.inf
        self._due = self._cost = 0.0

    def take(self, moves: Moves, wanted: int, least: int) -> int:
        """Take room for up to `wanted` bytes that go by `moves`, and return for how many.

        0 if there is room for less than `least` bytes. The caller gives it back by `settle`.
        """
        with self._lock:
            if time.monotonic() >= self._due:
                self._reread()
            granted = self._fitting(moves, wanted)
            if granted < wanted and self._is_old():
                self._reread()
                granted = self._fitting(moves, wanted)
            if granted < least:
                return 0
            self._coming[moves] = self._coming.get(moves, 0) + granted
            for room in self._entered(moves):
                self._spare[room.nodes] -= granted
            return granted

    def settle(self, moves: Moves, granted: int, arrived: int) -> None:
        """Record that of the bytes that `take` has granted so many have arrived.

        They leave room behind, for memory that goes the other way.
        """
        back = frozenset((new, old) for old, new in moves)
        with self._lock:
            self._coming[moves] -= granted
            for room in self._entered(moves):
                self._spare[room.nodes] += granted - arrived
            if len(moves) == 1:  # else nothing tells which nodes they have left
                for room in self._entered(back):
                    self._spare[room.nodes] += arrived

    def expire(self) -> None:
        """Forget the last reading."""
        with self._lock:
            self._read_at, self._due = -math.inf, 0.0

    @contextmanager
    def taken(self, sizes: Mapping[tuple[int, int], int]) -> Iterator[bool]:
        """Take room for `sizes` bytes by (old node, new node), and yield whether there is any."""
        wanted = {frozenset({pair}): size for pair, size in sizes.items() if size}
        granted = {moves: self.take(moves, size, least=size) for moves, size in wanted.items()}
        try:
            yield granted == wanted
        finally:
            for moves, size in granted.items():
                if size:
                    self.settle(moves, size, arrived=0)
            self.expire()

    def fits(self, moves: Moves, size: int) -> bool:
        """Return whether there is room for so many bytes, read just now."""
        with self._lock:
            if self._is_old():
                self._reread()
            return self._fitting(moves, size) >= size

    def balance(self, node: int, sources: NodeSet) -> int:
        """Return what may arrive on the node from `sources`, read now.

        It is negative if the node is too full, 0 if no memory can arrive there from elsewhere.
        """
        moves = [(old, node) for old in sources]
        return min((each.balance for each in self.read() if each.is_entered(moves)), default=0)

    def _is_old(self) -> bool:
        """Return whether another reading may tell more, and would not take most of the time."""
        return time.monotonic() >= self._read_at + max(_LEAST_SECONDS, self._cost)

    def _reread(self) -> None:
        began = time.monotonic()
        self._rooms = self.read()
        self._spare = {
            room.nodes: room.spare
            - sum(size for moves, size in self._coming.items() if room.is_entered(moves))
            for room in self._rooms
        }
        self._read_at = time.monotonic()
        self._cost = self._read_at - began
        self._due = self._read_at + max(_LEAST_SECONDS, self._cost / _SHARE)

    def _entered(self, moves: Moves) -> list[Room]:
        return [room for room in self._rooms if room.is_entered(moves)]

    def _fitting(self, moves: Moves, wanted: int) -> int:
        spare = (self._spare[room.nodes] for room in self._entered(moves))
        return max(0, min([wanted, *spare]))
