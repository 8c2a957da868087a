"""The agent's metrics on their way out: a textfile for node_exporter, and a socket of its own.

Both are the business of one thread, which serves one client at a time and none for long. What goes
wrong here is a line in the log and nothing else: the agent has more important things to do.
"""

from __future__ import annotations

import contextlib
import grp
import os
import select
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from schedhook.agent.sockets import check_directory, listen
from schedhook.jobs.metrics import CONTENT_TYPE, write_textfile
from schedhook.values.config import MetricsSection
from schedhook.values.errors import SchedhookError
from schedhook.values.log import get_logger

_log = get_logger()

_CLIENT_SECONDS = 2.0
"""For a client's request, and again for taking the answer."""
_MOST_REQUEST = 8192
"""Bytes."""
_FRESH_SECONDS = 1.0
"""For how long an answer is given again, however often it is asked for."""
_STOP_SECONDS = 5.0

Render = Callable[[], bytes]
"""The metrics as text; SchedhookError."""


@contextlib.contextmanager
def exporting(section: MetricsSection, render: Render) -> Iterator[None]:
    """Meanwhile do as [metrics] says."""
    with contextlib.ExitStack() as stack:
        server = None
        if section.socket:
            try:
                server = stack.enter_context(_listen(Path(section.socket), section.group))
            except SchedhookError as error:
                _log.error("metrics not served", problem=str(error))
        textfile = Path(section.textfile) if section.textfile else None
        if server is not None or textfile is not None:
            exporter = _Exporter(server, textfile, section.interval_s, render)
            exporter.start()
            stack.callback(exporter.stop)
        yield


class _Exporter(threading.Thread):
    def __init__(
        self, server: socket.socket | None, textfile: Path | None, interval: float, render: Render
    ) -> None:
        super().__init__(name="metrics", daemon=True)
        self._server = server
        self._textfile = textfile
        self._interval = interval
        self._render_now = render
        self._rendered = (float("-inf"), b"")
        self._wake = os.eventfd(0, os.EFD_CLOEXEC)

    def run(self) -> None:
        poller = select.poll()
        poller.register(self._wake, select.POLLIN)
        if self._server is not None:
            poller.register(self._server, select.POLLIN)
        due = time.monotonic()
        while True:
            wait = None
            if self._textfile is not None:
                if time.monotonic() >= due:
                    self._write(self._textfile)
                    due = time.monotonic() + self._interval
                wait = max(0.0, due - time.monotonic()) * 1e3
            ready = [descriptor for descriptor, _ in poller.poll(wait)]
            if self._wake in ready:
                return
            if ready and self._server is not None:
                with contextlib.suppress(OSError):
                    self._serve(self._server.accept()[0])

    def stop(self) -> None:
        """End the thread; one that hangs ends with the process."""
        os.eventfd_write(self._wake, 1)
        self.join(_STOP_SECONDS)
        if not self.is_alive():
            os.close(self._wake)

    def _render(self) -> bytes:
        at, text = self._rendered
        if time.monotonic() - at > _FRESH_SECONDS:
            try:
                text = self._render_now()
            except SchedhookError:
                raise
            except Exception as error:
                raise SchedhookError(f"{type(error).__name__}: {error}") from error
            self._rendered = (time.monotonic(), text)
        return text

    def _write(self, path: Path) -> None:
        try:
            write_textfile(path, self._render())
        except SchedhookError as error:
            _log.error("metrics not written", problem=str(error))

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            request = _read_request(connection)
            status, text = self._answer(request)
            head = (
                f"HTTP/1.0 {status}\r\nContent-Type: {CONTENT_TYPE}\r\n"
                f"Content-Length: {len(text)}\r\nConnection: close\r\n\r\n"
            )
            body = b"" if request.startswith(b"HEAD ") else text
            connection.settimeout(_CLIENT_SECONDS)
            connection.sendall(head.encode() + body)

    def _answer(self, request: bytes) -> tuple[str, bytes]:
        """Status line and text."""
        method, _, rest = request.partition(b"\r\n")[0].partition(b" ")
        target, _, protocol = rest.partition(b" ")
        if not protocol.startswith(b"HTTP/1."):
            return "400 Bad Request", b"this is no request of HTTP/1\n"
        if method not in (b"GET", b"HEAD"):
            return "405 Method Not Allowed", b"only GET and HEAD\n"
        if target.partition(b"?")[0] != b"/metrics":
            return "404 Not Found", b"the metrics are at /metrics\n"
        try:
            return "200 OK", self._render()
        except SchedhookError as error:
            return "500 Internal Server Error", f"{error}\n".encode()


def _read_request(connection: socket.socket) -> bytes:
    """All of it up to the blank line, and no more than there may be; what came in time."""
    end = time.monotonic() + _CLIENT_SECONDS
    request = b""
    while b"\r\n\r\n" not in request and len(request) <= _MOST_REQUEST:
        connection.settimeout(max(end - time.monotonic(), 0.001))
        try:
            part = connection.recv(_MOST_REQUEST)
        except TimeoutError:
            return b""
        if not part:
            return b""
        request += part
    return request if b"\r\n\r\n" in request else b""


@contextlib.contextmanager
def _listen(path: Path, group: str) -> Iterator[socket.socket]:
    try:
        check_directory(path.parent)
    except OSError as error:
        raise SchedhookError(f"{path.parent}: {error.strerror}") from error
    server = listen(path, 0o600)
    try:
        if group:
            try:
                shutil.chown(path, group=grp.getgrnam(group).gr_gid)
                path.chmod(0o660)
            except KeyError:
                raise SchedhookError(f"[metrics] group: there is no group {group!r}") from None
            except OSError as error:
                raise SchedhookError(f"{path}: chgrp {group}: {error.strerror}") from error
        yield server
    finally:
        server.close()
        with contextlib.suppress(OSError):
            path.unlink()
