"""The command line for tests: as a program on a terminal or a pipe, stopped by a signal."""

from __future__ import annotations

import fcntl
import inspect
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from click.testing import CliRunner

Run = Callable[..., tuple[int, str, str]]
"""Run `schedhook` in this process; return its exit status, standard output, standard error."""
SCHEDHOOK = (sys.executable, "-P", "-m", "schedhook.cli.main")
SIMULATED = ("--backend", "simulated", "--reserve", "1")
ESCAPES = re.compile(r"\x1b\[[0-9;]*m")
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""The signals that end a command that runs until it is stopped."""
_SECONDS = 60
"""How long a program may be silent, or take to end."""


def make_runner() -> CliRunner:
    """Return click's runner, with both outputs apart; click 8.1 mixes them unless it is told."""
    mixes = "mix_stderr" in inspect.signature(CliRunner).parameters
    return CliRunner(**({"mix_stderr": False} if mixes else {}))


def unquoted(message: str) -> str:
    """Return a message without quotes: click 8.1 puts none around options."""
    return message.replace("'", "")


@contextmanager
def started(
    *words: object, ignoring: Iterable[int] = (), **options: object
) -> Iterator[subprocess.Popen[str]]:
    """Start `schedhook` with standard output as a pipe, and kill it if it outlives the block.

    Of STOPS it ignores only the signals `ignoring`, whatever this process ignores: a shell starts
    background jobs with SIGINT ignored, and children inherit that.
    """
    process = subprocess.Popen(
        [*SCHEDHOOK, *map(str, words)],
        preexec_fn=lambda: _prepare(ignoring),  # noqa: PLW1509 - this process has one thread
        text=True,
        **{"stdout": subprocess.PIPE, **options},  # type: ignore[call-overload]
    )
    try:
        with process:
            try:
                yield process
            finally:
                if process.poll() is None:
                    process.kill()
    finally:
        process.wait(_SECONDS)


def end(process: subprocess.Popen[str], number: int) -> int:
    """Send the signal, and return the exit status with which the process ends."""
    process.send_signal(number)
    return process.wait(_SECONDS)


def on_terminal(
    *words: object,
    stop_after: bytes | None = None,
    stop_by: int | None = signal.SIGINT,
    seen: Callable[[bytes], object] = lambda _: None,
) -> tuple[int, bytes]:
    """Run with standard output and error on a terminal; return exit status and what was written.

    Once it has written `stop_after` it gets the signal `stop_by`; None: its terminal hangs up.
    `seen` is called with what was written so far each time that there is more.
    """
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (40, 100))
    environ = {
        key: value for key, value in os.environ.items() if key not in ("COLUMNS", "NO_COLOR")
    }
    options = {"stdout": slave, "stderr": slave, "env": {**environ, "TERM": "xterm"}}
    with started(*words, **options) as process:
        os.close(slave)
        written = b""
        while data := _read(master, written):
            written += data
            seen(written)
            if stop_after and stop_after in written:
                if stop_by is None:
                    break
                process.send_signal(stop_by)
                stop_after = None
        os.close(master)
        return process.wait(_SECONDS), written


def _read(terminal: int, before: bytes) -> bytes:
    """Return what is written next; empty once no process has the terminal open."""
    ready, _, _ = select.select([terminal], [], [], _SECONDS)
    assert ready, before
    try:
        return os.read(terminal, 65536)
    except OSError:
        return b""


def _prepare(ignoring: Iterable[int]) -> None:
    """Set the signals, and make standard output the controlling terminal if it is a terminal."""
    for number in STOPS:
        signal.signal(number, signal.SIG_IGN if number in ignoring else signal.SIG_DFL)
    if os.isatty(1):
        os.setsid()
        fcntl.ioctl(1, termios.TIOCSCTTY, 0)
