"""Run work in child processes, and kill them at random moments."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path


def random_moments() -> random.Random:
    return random.Random(os.environ.get("SCHEDHOOK_SEED", "1"))


def in_child(work: Callable[[], int | None], log: Path) -> int:
    """Run `work` in a forked child, which needs no imports, and return its process."""
    child = os.fork()
    if child:
        return child
    status = 70
    try:
        os.setsid()
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        for stream in (1, 2):
            os.dup2(file, stream)
        sys.stdout = sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
        status = work() or 0
    except BaseException:  # noqa: BLE001 - in the log
        traceback.print_exc()
    finally:
        os._exit(status)


def kill_after(child: int, seconds: float) -> int | None:
    """Kill the child after `seconds`; return its exit status, None if it was killed."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return None if os.WIFSIGNALED(status) else os.waitstatus_to_exitcode(status)


def settle(condition: Callable[[], bool], seconds: float) -> bool:
    """Return whether the condition becomes true within `seconds`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.01)
    return False
