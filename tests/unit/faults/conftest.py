"""The matrix tells how many runs it has had, whichever of pytest's workers had them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

Count = Callable[[int], None]
"""Told how many hooks have run under a fault."""
_KEY = "runs of hooks under faults"
_RUNS = [0]


def _count(runs: int) -> None:
    _RUNS[0] += runs


@pytest.fixture
def count() -> Count:
    return _count


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput[_KEY] = _RUNS[0]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    _count(getattr(node, "workeroutput", {}).get(_KEY, 0))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _RUNS[0]:
        terminalreporter.write_line(f"hooks x faults: {_RUNS[0]} runs")
