"""Export the agent's metrics: to a textfile for node_exporter, and over a socket of its own.

One thread does both. It serves one client at a time, and none for long. A failure is only logged:
it must not disturb the agent.
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
from schedhook.values.text import describe_error

_log = get_logger()

_CLIENT_SECONDS = 2.0
"""How long a client may take for its request, and again to read the answer."""
_MAX_REQUEST_BYTES = 8192
_CACHE_SECONDS = 1.0
"""For how long an answer is repeated, however often clients ask."""
_STOP_SECONDS = 5.0

Render = Callable[[], bytes]
"""Returns the metrics as text; may raise SchedhookError."""


@contextlib.contextmanager
def export_metrics(section: MetricsSection, render: Render) -> Iterator[None]:
    """Export metrics as [metrics] says while the block runs."""
    with contextlib.ExitStack() as stack:
        server = None
        if section.socket:
            try:
                server = stack.enter_context(_listen(Path(section.socket), section.group))
            except SchedhookError as error:
                _log.error("cannot serve metrics", problem=str(error))
        textfile = Path(section.textfile) if section.textfile else None
        if server is not None or textfile is not None:
            exporter = _Exporter(server, textfile, section.interval_s, _cached(render))
            exporter.start()
            stack.callback(exporter.stop)
        yield


class _Exporter(threading.Thread):
    """Writes the textfile every `interval` seconds, and answers clients of the socket."""

    def __init__(
        self, server: socket.socket | None, textfile: Path | None, interval: float, render: Render
    ) -> None:
        super().__init__(name="metrics", daemon=True)
        self._server = server
        self._textfile = textfile
        self._interval = interval
        self._render = render
        self._wakeup = os.eventfd(0, os.EFD_CLOEXEC)

    def run(self) -> None:
        poller = select.poll()
        poller.register(self._wakeup, select.POLLIN)
        if self._server is not None:
            poller.register(self._server, select.POLLIN)
        due = time.monotonic()
        while True:
            wait = None
            if self._textfile is not None:
                if time.monotonic() >= due:
                    _write(self._textfile, self._render)
                    due = time.monotonic() + self._interval
                wait = max(0.0, due - time.monotonic()) * 1e3
            ready = [descriptor for descriptor, _ in poller.poll(wait)]
            if self._wakeup in ready:
                return
            if ready and self._server is not None:
                with contextlib.suppress(OSError):
                    _serve(self._server.accept()[0], self._render)

    def stop(self) -> None:
        """End the thread; if it hangs, it ends with the process."""
        os.eventfd_write(self._wakeup, 1)
        self.join(_STOP_SECONDS)
        if not self.is_alive():
            os.close(self._wakeup)


def _cached(render: Render) -> Render:
    """Return a `render` that repeats its text for a second, and raises only SchedhookError."""
    rendered = (float("-inf"), b"")

    def render_cached() -> bytes:
        nonlocal rendered
        at, text = rendered
        if time.monotonic() - at > _CACHE_SECONDS:
            try:
                text = render()
            except SchedhookError:
                raise
            except Exception as error:
                raise SchedhookError(describe_error(error)) from error
            rendered = (time.monotonic(), text)
        return text

    return render_cached


def _write(path: Path, render: Render) -> None:
    try:
        write_textfile(path, render())
    except SchedhookError as error:
        _log.error("cannot write metrics", problem=str(error))


def _serve(connection: socket.socket, render: Render) -> None:
    """Read one request of HTTP/1 and answer it."""
    with connection:
        request = _read_request(connection)
        status, text = _answer(request, render)
        head = (
            f"HTTP/1.0 {status}\r\nContent-Type: {CONTENT_TYPE}\r\n"
            f"Content-Length: {len(text)}\r\nConnection: close\r\n\r\n"
        )
        body = b"" if request.startswith(b"HEAD ") else text
        connection.settimeout(_CLIENT_SECONDS)
        connection.sendall(head.encode() + body)


def _read_request(connection: socket.socket) -> bytes:
    """Return the request up to its blank line; nothing if it is too long, too slow or cut off."""
    end = time.monotonic() + _CLIENT_SECONDS
    request = b""
    while b"\r\n\r\n" not in request and len(request) <= _MAX_REQUEST_BYTES:
        connection.settimeout(max(end - time.monotonic(), 0.001))
        try:
            part = connection.recv(_MAX_REQUEST_BYTES)
        except TimeoutError:
            return b""
        if not part:
            return b""
        request += part
    return request if b"\r\n\r\n" in request else b""


def _answer(request: bytes, render: Render) -> tuple[str, bytes]:
    """Return the answer's status and text."""
    method, _, rest = request.partition(b"\r\n")[0].partition(b" ")
    target, _, protocol = rest.partition(b" ")
    if not protocol.startswith(b"HTTP/1."):
        return "400 Bad Request", b"not a request of HTTP/1\n"
    if method not in (b"GET", b"HEAD"):
        return "405 Method Not Allowed", b"only GET and HEAD\n"
    if target.partition(b"?")[0] != b"/metrics":
        return "404 Not Found", b"the metrics are at /metrics\n"
    try:
        return "200 OK", render()
    except SchedhookError as error:
        return "500 Internal Server Error", f"{error}\n".encode()


@contextlib.contextmanager
def _listen(path: Path, group: str) -> Iterator[socket.socket]:
    """Serve the socket `path` to this user and the group for the block. Raise SchedhookError."""
    try:
        check_directory(path.parent)
    except OSError as error:
        raise SchedhookError(f"{path.parent}: {error.strerror}") from error
    server = listen(path, 0o600)
    try:
        if group:
            _allow_group(path, group)
        yield server
    finally:
        server.close()
        with contextlib.suppress(OSError):
            path.unlink()


def _allow_group(path: Path, group: str) -> None:
    try:
        shutil.chown(path, group=grp.getgrnam(group).gr_gid)
        path.chmod(0o660)
    except KeyError:
        raise SchedhookError(f"[metrics] group: there is no group {group!r}") from None
    except OSError as error:
        raise SchedhookError(f"{path}: chgrp {group}: {error.strerror}") from error
