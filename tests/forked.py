"""Run commands in forks of this process, which has imported them.

In an emulated guest a Python program takes seconds to start.
"""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TextIO

_FAILED = 70


def in_child(
    work: Callable[[], object],
    log: Path,
    *,
    errors: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> int:
    """Run `work` in a forked child and return the child's process number.

    What it prints is appended to `log`, standard error to `errors` if that is given. Its exit
    status is what `work` returns or gives to sys.exit(); a message or another value counts as 1.

    This process must have no journal open: SQLite in the child would believe that it holds the
    locks on it, and read what another process has deleted.
    """
    if _open_journals():
        gc.collect()  # a command that ran in this process has left it to the collector
    assert not _open_journals(), "close the journal before a fork"
    child = os.fork()
    if child:
        return child
    status = _FAILED
    try:
        os.setsid()
        sys.stdout, sys.stderr = _redirect(1, log), _redirect(2, errors or log)
        os.environ.update(environment or {})
        status = _status(work)
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        os.write(2, traceback.format_exc().encode())
        raise
    finally:
        os._exit(status)


def _open_journals() -> list[str]:
    names = map(_target, Path("/proc/self/fd").iterdir())
    return [name for name in names if "journal.db" in name]


def _target(descriptor: Path) -> str:
    try:
        return str(descriptor.readlink())
    except FileNotFoundError:  # that of this listing
        return ""


def _redirect(stream: int, path: Path) -> TextIO:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(file, stream)
    return open(stream, "w", encoding="utf-8", errors="backslashreplace", closefd=False)


def _status(work: Callable[[], object]) -> int:
    try:
        result = work()
    except SystemExit as end:
        result = end.code
    return result if isinstance(result, int) else 0 if result is None else 1


class Child:
    """A console command in a forked child, with the methods of subprocess.Popen."""

    def __init__(
        self,
        command: Callable[[], object],
        words: Sequence[str],
        log: Path,
        *,
        errors: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        def work() -> object:
            sys.argv = ["command", *words]
            return command()

        self.pid = in_child(work, log, errors=errors, environment=environment)
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return the exit status, negative for a signal; None: the child runs."""
        if self.returncode is None:
            found, status = os.waitpid(self.pid, os.WNOHANG)
            if found:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, seconds: float) -> int:
        """Wait for the end and return the exit status. Raise subprocess.TimeoutExpired."""
        end = time.monotonic() + seconds
        while (status := self.poll()) is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired(str(self.pid), seconds)
            time.sleep(0.02)
        return status

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the child has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)
