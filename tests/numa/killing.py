"""Run work in child processes, and kill them at random moments."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable


def random_moments() -> random.Random:
    return random.Random(os.environ.get("SCHEDHOOK_SEED", "1"))


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
