"""Answer requests for metrics: the little of HTTP/1 that Prometheus and curl(1) use."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

from schedhook.jobs.metrics import Format
from schedhook.values.errors import SchedhookError

Render = Callable[[Format], bytes]
"""Returns the metrics as text; may raise SchedhookError."""

CLIENT_SECONDS = 2.0
"""How long a client may take for its request, and again to read the answer."""
_MAX_REQUEST_BYTES = 8192


def answer_client(connection: socket.socket, render: Render) -> None:
    """Read one request and answer it. Raise OSError if the client has gone or is too slow."""
    request = _read_request(connection)
    status, form, text = _answer(request, render)
    head = (
        f"HTTP/1.0 {status}\r\nContent-Type: {form.value}\r\n"
        f"Content-Length: {len(text)}\r\nConnection: close\r\n\r\n"
    )
    body = b"" if request.startswith(b"HEAD ") else text
    connection.settimeout(CLIENT_SECONDS)
    connection.sendall(head.encode() + body)


def _read_request(connection: socket.socket) -> bytes:
    """Return the request up to its blank line; nothing if it is too long, too slow or cut off."""
    end = time.monotonic() + CLIENT_SECONDS
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


def _answer(request: bytes, render: Render) -> tuple[str, Format, bytes]:
    """Return the answer's status, and its text with the format that the text has."""
    first, *headers = request.split(b"\r\n")
    method, _, rest = first.partition(b" ")
    target, _, protocol = rest.partition(b" ")
    if not protocol.startswith(b"HTTP/1."):
        return "400 Bad Request", Format.TEXT, b"not a request of HTTP/1\n"
    if method not in (b"GET", b"HEAD"):
        return "405 Method Not Allowed", Format.TEXT, b"only GET and HEAD\n"
    if target.partition(b"?")[0] != b"/metrics":
        return "404 Not Found", Format.TEXT, b"the metrics are at /metrics\n"
    form = _wanted_format(headers)
    try:
        return "200 OK", form, render(form)
    except SchedhookError as error:
        return "500 Internal Server Error", Format.TEXT, f"{error}\n".encode()


def _wanted_format(headers: list[bytes]) -> Format:
    for header in headers:
        name, _, value = header.partition(b":")
        if name.lower() == b"accept" and b"application/openmetrics-text" in value:
            return Format.OPENMETRICS
    return Format.TEXT
