"""Export the agent's metrics: to a textfile for node_exporter, and over sockets of its own.

One thread does all of it. It serves one client at a time, and none for long. A failure is only
logged: it must not disturb the agent.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from schedhook.agent.metrics_http import CLIENT_SECONDS, Render, answer_client
from schedhook.agent.metrics_listeners import Listener, listen_locally, listen_on_tcp
from schedhook.jobs.metrics import Format, write_textfile
from schedhook.values.config import MetricsSection
from schedhook.values.errors import SchedhookError
from schedhook.values.log import get_logger
from schedhook.values.text import describe_error

_log = get_logger()

_CACHE_SECONDS = 1.0
"""For how long an answer is repeated, however often clients ask."""
_STOP_SECONDS = 5.0


@contextlib.contextmanager
def export_metrics(section: MetricsSection, render: Render) -> Iterator[None]:
    """Export metrics as [metrics] says while the block runs."""
    with contextlib.ExitStack() as stack:
        listeners = []
        for listener in _listeners(section):
            try:
                listeners.append(stack.enter_context(listener))
            except SchedhookError as error:
                _log.error("cannot serve metrics", problem=str(error))
        textfile = Path(section.textfile) if section.textfile else None
        if listeners or textfile is not None:
            exporter = _Exporter(listeners, textfile, section.interval_s, _cached(render))
            exporter.start()
            stack.callback(exporter.stop)
        yield


def _listeners(section: MetricsSection) -> Iterator[contextlib.AbstractContextManager[Listener]]:
    if section.socket:
        yield listen_locally(Path(section.socket), section.group)
    if section.listen:
        yield listen_on_tcp(section)


class _Exporter(threading.Thread):
    """Writes the textfile every `interval` seconds, and answers clients of the sockets."""

    def __init__(
        self,
        listeners: Sequence[Listener],
        textfile: Path | None,
        interval: float,
        render: Render,
    ) -> None:
        super().__init__(name="metrics", daemon=True)
        self._listeners = {each.server.fileno(): each for each in listeners}
        self._textfile = textfile
        self._interval = interval
        self._render = render
        self._wakeup = os.eventfd(0, os.EFD_CLOEXEC)

    def run(self) -> None:
        poller = select.poll()
        for descriptor in (self._wakeup, *self._listeners):
            poller.register(descriptor, select.POLLIN)
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
            for descriptor in ready:
                _serve(self._listeners[descriptor], self._render)

    def stop(self) -> None:
        """End the thread; if it hangs, it ends with the process."""
        os.eventfd_write(self._wakeup, 1)
        self.join(_STOP_SECONDS)
        if not self.is_alive():
            os.close(self._wakeup)


def _cached(render: Render) -> Render:
    """Return a `render` that repeats its text for a second, and raises only SchedhookError."""
    rendered: dict[Format, tuple[float, bytes]] = {}

    def render_cached(form: Format) -> bytes:
        at, text = rendered.get(form, (float("-inf"), b""))
        if time.monotonic() - at > _CACHE_SECONDS:
            try:
                text = render(form)
            except SchedhookError:
                raise
            except Exception as error:
                raise SchedhookError(describe_error(error)) from error
            rendered[form] = (time.monotonic(), text)
        return text

    return render_cached


def _write(path: Path, render: Render) -> None:
    try:
        write_textfile(path, render(Format.TEXT))
    except SchedhookError as error:
        _log.error("cannot write metrics", problem=str(error))


def _serve(listener: Listener, render: Render) -> None:
    """Answer the next client; one that goes away or that TLS turns away is no reason for a log."""
    try:
        connection, _ = listener.server.accept()
    except OSError:
        return
    with contextlib.ExitStack() as stack:
        stack.callback(connection.close)
        connection.settimeout(CLIENT_SECONDS)
        try:
            wrapped = stack.enter_context(listener.wrap(connection))
            answer_client(wrapped, render)
        except OSError as error:
            _log.debug("client of the metrics turned away", problem=describe_error(error))
        except SchedhookError as error:
            _log.error("cannot serve metrics", problem=str(error))
