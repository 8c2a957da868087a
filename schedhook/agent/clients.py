"""Who talks to the agent, and how much of it others than root may ask for.

The kernel says who is at the other end of a socket. Root, and the user that the agent runs as, are
never turned away: schedulers' hooks are theirs.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterable
from dataclasses import dataclass

from schedhook.hook import delivery
from schedhook.hook.message import Message
from schedhook.values.ownership import is_root_or_self

_SECONDS = 5.0
"""How long a client may take to say what it wants."""
_MOST_BYTES_OF_USERS = 1 << 18
_CONNECTIONS_PER_USER = 16
_CONNECTIONS_OF_USERS = 512
_PER_USER = (20.0, 100.0)
"""Events a second, and how many at once after a rest: a TaskProlog comes with every step."""
_OF_ALL_USERS = (200.0, 1000.0)
_MOST_USERS = 4096


class Client:
    """A connection and who is at its other end."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        _, self.uid, _ = struct.unpack("3i", credentials)
        self.trusted = is_root_or_self(self.uid)
        self.most_bytes = delivery.MOST_BYTES if self.trusted else _MOST_BYTES_OF_USERS
        self.deadline = time.monotonic() + _SECONDS
        self.said = bytearray()
        self.message: Message | None = None
        """What it wanted, once that is understood."""


class Gate:
    """Turns users away who ask for too much."""

    def __init__(self) -> None:
        self._of_all = _Allowance(*_OF_ALL_USERS)
        self._of_each: dict[int, _Allowance] = {}

    def refusal(self, client: Client, others: Iterable[Client], now: float) -> str | None:
        """Why this client may not speak now, None where it may; `others` are connected."""
        if client.trusted:
            return None
        users = [other.uid for other in others if not other.trusted]
        if users.count(client.uid) >= _CONNECTIONS_PER_USER or len(users) >= _CONNECTIONS_OF_USERS:
            return "too many connections"
        if len(self._of_each) >= _MOST_USERS:  # user namespaces have thousands to spend
            self._of_each.clear()
        mine = self._of_each.setdefault(client.uid, _Allowance(*_PER_USER))
        if not (mine.take(now) and self._of_all.take(now)):
            return "too many events in a short time"
        return None


@dataclass(slots=True)
class _Allowance:
    """So many a second, and as many as `most` at once after a rest."""

    rate: float
    most: float
    left: float = -1.0
    at: float = 0.0

    def take(self, now: float) -> bool:
        rested = self.most if self.left < 0 else self.left + (now - self.at) * self.rate
        self.left, self.at = min(self.most, rested), now
        if self.left < 1:
            return False
        self.left -= 1
        return True
