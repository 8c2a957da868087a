"""Every tier: find the helpers, give examples of hypothesis time, let children take signals."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
from hypothesis import settings

# At the end, so that the tests find their helpers (``tests.…``) and nothing else moves.
sys.path.append(str(Path(__file__).parents[1]))

from tests.balancing import STATES

# How long an example takes says more about the machine than about the code.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")

# A shell starts background jobs with SIGINT ignored, nohup(1) with SIGHUP ignored. Children would
# inherit that, but a signal that this process catches has its default action in a new program.
for number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, lambda *_: None)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add what the tiers with several nodes can be told."""
    parser.addoption(
        "--balancing",
        choices=STATES,
        default=os.environ.get("SCHEDHOOK_BALANCING"),
        help="the kernel's NUMA balancing; default: SCHEDHOOK_BALANCING, or the tier's",
    )
    parser.addoption(
        "--dirty",
        action="store_true",
        default=bool(os.environ.get("SCHEDHOOK_DIRTY")),
        help="make the virtual machine a dirty host; default: if SCHEDHOOK_DIRTY is set",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers."""
    config.addinivalue_line(
        "markers", "balancing(state, …): with NUMA balancing on, off, or once with each"
    )
    config.addinivalue_line("markers", "dirty: also runs in the short run on a dirty host")
