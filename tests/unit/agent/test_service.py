"""Signals that stop the agent."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from schedhook.agent.service import stop_at_signals

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Restore the signals' handlers after the test."""
    before = [signal.getsignal(number) for number in SIGNALS]
    yield
    for number, handler in zip(SIGNALS, before, strict=True):
        signal.signal(number, handler)


def test_each_signal_stops_the_agent() -> None:
    stops: list[None] = []
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    stop_at_signals(lambda: stops.append(None))
    for number in SIGNALS:
        os.kill(os.getpid(), number)
    assert len(stops) == 3


def test_a_sighup_that_is_ignored_stays_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    stop_at_signals(lambda: None)
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
