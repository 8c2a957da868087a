"""The agent's clients, and how much of the agent's time users other than root may take.

The kernel tells which user is at the other end of a socket. Root, and the user that the agent runs
as, are never turned away: schedulers' hooks run as these users.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Iterable
from dataclasses import dataclass

from schedhook.hook import delivery
from schedhook.values.ownership import is_root_or_self

_REQUEST_SECONDS = 5.0
"""How long a client may take to send its message."""
_MAX_BYTES_OF_USERS = 1 << 18
_MAX_ANSWER_BYTES = 1000
_CONNECTIONS_PER_USER = 16
_CONNECTIONS_OF_USERS = 512
_PER_USER = (20.0, 100.0)
"""Events per second, and how many at once after a pause: each step has a TaskProlog."""
_OF_ALL_USERS = (200.0, 1000.0)
_MAX_USERS = 4096


class Client:
    """A connection, the user at its other end and what that user has sent so far."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        _, self.uid, _ = struct.unpack("3i", credentials)
        self.trusted = is_root_or_self(self.uid)
        self.max_bytes = delivery.MOST_BYTES if self.trusted else _MAX_BYTES_OF_USERS
        self.deadline = time.monotonic() + _REQUEST_SECONDS
        """When the message must be complete, in seconds of time.monotonic()."""
        self.received = bytearray()
        self.complete = False
        """Whether the whole message was received; the client may still wait for the result."""

    def answer(self, line: str) -> None:
        """Send one line. A client that does not read it is ignored."""
        text = " ".join(line.split()).encode("utf-8", "replace")[:_MAX_ANSWER_BYTES] + b"\n"
        with contextlib.suppress(OSError):
            self.connection.send(text)


class AdmissionControl:
    """Turns away users who open too many connections or send too many events."""

    def __init__(self) -> None:
        self._of_all = _RateLimit(*_OF_ALL_USERS)
        self._per_user: dict[int, _RateLimit] = {}

    def refusal(self, client: Client, connected: Iterable[Client], now: float) -> str | None:
        """Return why the client must not send an event now, None if it may.

        `connected` are the other clients; `now` is of time.monotonic().
        """
        if client.trusted:
            return None
        users = [other.uid for other in connected if not other.trusted]
        if users.count(client.uid) >= _CONNECTIONS_PER_USER or len(users) >= _CONNECTIONS_OF_USERS:
            return "too many connections"
        if len(self._per_user) >= _MAX_USERS:  # one user may have thousands in a user namespace
            self._per_user.clear()
        own = self._per_user.setdefault(client.uid, _RateLimit(*_PER_USER))
        if not (own.allows(now) and self._of_all.allows(now)):
            return "too many events in a short time"
        return None


@dataclass(slots=True)
class _RateLimit:
    """A token bucket: `rate` events per second, and up to `burst` at once after a pause."""

    rate: float
    burst: float
    tokens: float = -1.0
    """Negative until the first event."""
    at: float = 0.0

    def allows(self, now: float) -> bool:
        """Return whether one more event is allowed now, and count it if so."""
        filled = self.burst if self.tokens < 0 else self.tokens + (now - self.at) * self.rate
        self.tokens, self.at = min(self.burst, filled), now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True
