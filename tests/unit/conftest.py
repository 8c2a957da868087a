"""Fixtures that several rooms' tests share."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.stranger import Stranger, make_stranger

Count = Callable[[int], None]
"""Called with the number of hooks that have run under a fault."""
_KEY = "runs of hooks under faults"
_RUNS = [0]


@pytest.fixture
def here() -> Iterator[Path]:
    """Yield a directory that every user may reach, for tests that run as another user.

    It is not below pytest's own directory, which pytest makes private each time it runs.
    """
    with tempfile.TemporaryDirectory(prefix="schedhook-") as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


@pytest.fixture(scope="session")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Stranger:
    """Return an author of plug-ins, who has installed schedhook."""
    return make_stranger(tmp_path_factory.mktemp("stranger"))


# -- count hooks run under faults; here, since xdist's workers first read only this conftest ------


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
