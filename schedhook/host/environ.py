"""One variable of another process's initial environment, read without trust in that process.

The environment is the process's own memory: it may say anything and be as large as the process
likes. While the process replaces its program, execve(2), it has none for a moment.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from schedhook.host.bounded import call_bounded

_MOST_BYTES = 1 << 20
_TRIES = 5
_PAUSE_SECONDS = 0.02


def read_variable(
    pid: int, name: str, is_it: Callable[[], bool], root: Path = Path("/")
) -> bytes | None:
    """Return the first value of the variable `name` of a process, None if it has none.

    `is_it` says whether the process with the number `pid` is still the one that is meant: it is
    asked while a descriptor keeps hold of the process, so that no later one with its number is
    read. Return None also if it is not that one, if it has exited, or if the caller may not read
    it. Raise NotAnsweringError if the process lets its reader wait.
    """
    try:
        # /proc/PID, whose files belong to this process only, also if its number is reused.
        directory = os.open(root / "proc" / str(pid), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            variables = _read_settled(pid, directory, root).split(b"\0") if is_it() else []
        finally:
            os.close(directory)
    except OSError:
        return None
    prefix = name.encode() + b"="
    return next((each[len(prefix) :] for each in variables if each.startswith(prefix)), None)


def _read_settled(pid: int, directory: int, root: Path) -> bytes:
    """Return the beginning of `environ` in a directory of /proc; look again if it is empty."""

    def read() -> bytes:
        environ = os.open("environ", os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
        with os.fdopen(environ, "rb") as file:
            return file.read(_MOST_BYTES)

    for _ in range(_TRIES):
        if found := call_bounded(pid, read, root):
            return found
        time.sleep(_PAUSE_SECONDS)
    return b""
