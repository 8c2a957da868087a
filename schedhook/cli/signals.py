"""Stop a command that runs until SIGINT, SIGTERM or SIGHUP."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_AGAIN_SECONDS = 0.02
"""After what time a signal that nobody has heard of is sent again."""


@contextmanager
def until_stopped() -> Iterator[None]:
    """Run the block until it ends or one of the signals arrives, which ends it without an error.

    Context managers inside the block are left in order, so a terminal is restored. A signal that
    was ignored when the program started stays ignored: SIGHUP under nohup(1), SIGINT in the
    background of a script. Call it from the main thread; see signal(7).
    """
    stopped = 0

    def stop(number: int, _frame: FrameType | None) -> None:
        nonlocal stopped
        if not stopped:  # a second signal must not interrupt the restoring
            stopped = number
            raise KeyboardInterrupt

    def repeat(ignored: UnraisableHookArgs) -> None:
        """Send the signal again if it came where Python drops exceptions: in a fork, say."""
        nonlocal stopped
        if not (stopped and isinstance(ignored.exc_value, KeyboardInterrupt)):
            report(ignored)
            return
        again = threading.Timer(_AGAIN_SECONDS, os.kill, (os.getpid(), stopped))
        stopped = 0
        again.start()

    report, sys.unraisablehook = sys.unraisablehook, repeat
    previous = {
        number: handler
        for number in _SIGNALS
        if (handler := signal.getsignal(number)) is not signal.SIG_IGN
    }
    for number in previous:
        signal.signal(number, stop)
    try:
        yield
    except (KeyboardInterrupt, OSError):  # OSError: after SIGHUP the terminal may be gone
        if not stopped:
            raise
    finally:
        sys.unraisablehook = report
        for number, handler in previous.items():
            signal.signal(number, handler)
