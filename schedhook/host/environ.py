"""One variable of another process's initial environment, read without trust in that process.

The environment is the process's own memory: it may say anything and be as large as the process
likes. Its reader needs the lock of the process's address space, which a thread of the process can
hold for as long as a file server of the user's does not answer, fuse(4). So another process reads
it, within a limit of bytes and of time.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_PATH = "/usr/bin:/bin"
_MOST_BYTES = 1 << 20
_SECONDS = 2.0


class EnvironmentBlockedError(Exception):
    """Reading the environment took too long."""


def read_variable(
    pid: int, name: str, is_it: Callable[[], bool], root: Path = Path("/")
) -> bytes | None:
    """Return the first value of the variable `name` of a process, None if it has none.

    `is_it` says whether the process with the number `pid` is still the one that is meant: it is
    asked while a descriptor keeps hold of the process, so that no later one with its number is
    read. Return None also if it is not that one, if it has exited, or if the caller may not read
    it. Raise EnvironmentBlockedError if the process lets its reader wait.
    """
    try:
        with _hold(pid, root) as directory:
            if not is_it():
                return None
            variables = _read(directory).split(b"\0")
    except OSError:
        return None
    prefix = name.encode() + b"="
    return next((each[len(prefix) :] for each in variables if each.startswith(prefix)), None)


@contextmanager
def _hold(pid: int, root: Path) -> Iterator[int]:
    """Hold /proc/PID, whose files belong to this process only, also if its number is reused."""
    directory = os.open(root / "proc" / str(pid), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield directory
    finally:
        os.close(directory)


def _read(directory: int) -> bytes:
    """Return the beginning of `environ` in a directory of /proc; raise OSError if that fails."""
    reader = subprocess.Popen(
        ["head", "-c", str(_MOST_BYTES), f"/proc/self/fd/{directory}/environ"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        pass_fds=(directory,),
        env={"PATH": _PATH, "LC_ALL": "C"},
    )
    try:
        return reader.communicate(timeout=_SECONDS)[0]
    except subprocess.TimeoutExpired:
        # Not waited for: it may be uninterruptible for as long as the user likes.
        reader.kill()
        assert reader.stdout is not None
        reader.stdout.close()
        raise EnvironmentBlockedError(f"its reader waited for more than {_SECONDS:g} s") from None
