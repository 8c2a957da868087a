"""Every tier: find the helpers, give examples of hypothesis time, let children take signals."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from hypothesis import settings

# At the end, so that the tests find their helpers (``tests.…``) and nothing else moves.
sys.path.append(str(Path(__file__).parents[1]))

# How long an example takes says more about the machine than about the code.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")

# A shell starts background jobs with SIGINT ignored, nohup(1) with SIGHUP ignored. Children would
# inherit that, but a signal that this process catches has its default action in a new program.
for number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, lambda *_: None)
