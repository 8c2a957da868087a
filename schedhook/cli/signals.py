"""Stop a command that runs until SIGINT, SIGTERM or SIGHUP."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def until_stopped() -> Iterator[None]:
    """Run the block until it ends or one of the signals arrives, which ends it without an error.

    Context managers inside the block are left in order, so a terminal is restored. A signal that
    was ignored when the program started stays ignored: SIGHUP under nohup(1), SIGINT in the
    background of a script. Call it from the main thread; see signal(7).
    """
    stopped = False

    def stop(_number: int, _frame: FrameType | None) -> None:
        nonlocal stopped
        if not stopped:  # a second signal must not interrupt the restoring
            stopped = True
            raise KeyboardInterrupt

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
        for number, handler in previous.items():
            signal.signal(number, handler)
