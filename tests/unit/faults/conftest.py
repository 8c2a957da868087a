"""The matrix tells how many runs it has had."""

from __future__ import annotations

import pytest

_RUNS = [0]


@pytest.fixture
def count() -> list[int]:
    """Runs of a hook under a fault; a test adds its own."""
    return _RUNS


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _RUNS[0]:
        terminalreporter.write_line(f"hooks x faults: {_RUNS[0]} runs")
