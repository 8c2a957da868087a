"""The agent's listening socket and its connected clients. Nothing here blocks."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from schedhook.agent.clients import AdmissionControl, Client
from schedhook.agent.sockets import listen
from schedhook.values.log import get_logger

_log = get_logger()

_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_MAX_ACCEPTED = 64
"""Connections accepted in a row, before other descriptors have their turn."""


class Connections:
    """Reads messages from clients.

    The descriptors are registered with `poller`; its owner calls `receive` for each one that is
    ready, and `tick` about once a second.
    """

    def __init__(self, poller: select.epoll) -> None:
        self._poller = poller
        self._path: Path | None = None
        self._server: socket.socket | None = None
        self._clients: dict[int, Client] = {}
        self._admission = AdmissionControl()
        self._paused = False

    def listen(self, path: Path) -> None:
        """Create the socket `path` and accept connections to it."""
        # Any user may connect to root's socket; the kernel tells which user a client is.
        self._server = listen(path, 0o666 if os.geteuid() == 0 else 0o600)
        self._path = path
        self._poller.register(self._server, select.EPOLLIN)

    def __contains__(self, descriptor: int) -> bool:
        return descriptor in self._clients or self._is_server(descriptor)

    def receive(self, descriptor: int) -> Iterator[tuple[Client, bytes]]:
        """Read from a descriptor that is ready; yield each client whose message is complete.

        The caller answers and drops each client before it asks for the next: clients that are
        connected count against the limit of their user.
        """
        clients = self._accept() if self._is_server(descriptor) else [self._clients[descriptor]]
        for client in clients:
            raw = self._read(client)
            if raw is not None:
                yield client, raw

    def tick(self, now: float) -> None:
        """Drop clients that are too slow; accept connections again if that was paused."""
        if self._paused and self._server is not None:
            self._paused = False
            self._poller.modify(self._server, select.EPOLLIN)
        for client in list(self._clients.values()):
            if now > client.deadline and not client.complete:
                self.answer_and_drop(client, "too slow")

    def drop(self, client: Client) -> None:
        """Close the client's connection. It may be closed already."""
        if self._clients.pop(client.connection.fileno(), None) is not None:
            with contextlib.suppress(OSError, ValueError):
                self._poller.unregister(client.connection)
        client.connection.close()

    def answer_and_drop(self, client: Client, line: str) -> None:
        """Send the client a line, and close its connection."""
        client.answer(line)
        self.drop(client)

    def close(self) -> None:
        """Close all connections, and remove the socket."""
        for client in list(self._clients.values()):
            self.drop(client)
        if self._server is not None and self._path is not None:
            self._server.close()
            with contextlib.suppress(OSError):
                self._path.unlink()

    def _is_server(self, descriptor: int) -> bool:
        return self._server is not None and descriptor == self._server.fileno()

    def _accept(self) -> Iterator[Client]:
        """Accept connections that wait, and yield those that are admitted."""
        assert self._server is not None
        for _ in range(_MAX_ACCEPTED):
            try:
                connection, _ = self._server.accept()
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    self._pause(error)
                return
            connection.setblocking(False)
            client = Client(connection)
            refusal = self._admission.refusal(client, self._clients.values(), time.monotonic())
            if refusal:
                client.answer(refusal)
                connection.close()
                continue
            self._clients[connection.fileno()] = client
            self._poller.register(connection, select.EPOLLIN)
            yield client

    def _pause(self, error: OSError) -> None:
        """Accept nothing until the next tick.

        Waiting clients stay in the kernel's queue; polling the socket would be a busy loop.
        """
        assert self._server is not None
        _log.error("cannot accept connections", problem=error.strerror)
        self._paused = True
        self._poller.modify(self._server, 0)

    def _read(self, client: Client) -> bytes | None:
        """Read what has arrived, and return the message once it is complete."""
        if client.complete:
            self.drop(client)  # it waited for the result and has gone
            return None
        try:
            part = client.connection.recv(1 << 16)
        except BlockingIOError:
            return None
        except OSError:
            self.drop(client)
            return None
        client.received += part
        if len(client.received) > client.max_bytes:
            line = f"the message has more than {client.max_bytes} bytes"
            self.answer_and_drop(client, line)
            return None
        if part:
            return None
        raw = bytes(client.received)
        client.received.clear()
        client.complete = True
        self._poller.modify(client.connection, 0)  # only a hang-up is still reported
        return raw
