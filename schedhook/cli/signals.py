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
"""How soon a signal is sent again whose KeyboardInterrupt Python has dropped."""


@contextmanager
def until_stopped() -> Iterator[None]:
    """Run the block until it ends or one of the signals arrives, which ends it without an error.

    Context managers inside the block are left in order, so a terminal is restored. A signal that
    was ignored when the program started stays ignored: SIGHUP under nohup(1), SIGINT in the
    background of a script. Call it from the main thread; see signal(7).
    """
    heard = raised = dropping = ended = False
    again: threading.Timer | None = None

    def stop(number: int, _frame: FrameType | None) -> None:
        nonlocal heard, raised
        heard = True
        # A second signal must not interrupt the restoring, nor the sending of the first one again.
        if raised or dropping or ended:
            return
        raised = True
        raise KeyboardInterrupt(number)

    def drop(ignored: UnraisableHookArgs) -> None:
        """Send the signal again if it came where Python drops exceptions: in a fork, say."""
        nonlocal raised, dropping, again
        error = ignored.exc_value
        if not (raised and isinstance(error, KeyboardInterrupt) and error.args):
            report(ignored)
            return
        dropping, raised = True, False
        again = threading.Timer(_AGAIN_SECONDS, os.kill, (os.getpid(), *error.args))
        again.start()
        dropping = False

    report, sys.unraisablehook = sys.unraisablehook, drop
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
        if not heard:
            raise
    finally:
        ended = True
        if again is not None:
            again.cancel()
            again.join()
        sys.unraisablehook = report
        for number, handler in previous.items():
            signal.signal(number, handler)
