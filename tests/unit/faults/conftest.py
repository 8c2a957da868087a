"""The matrix tells how many runs it has had."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.unit.faults.cells import Ahead

AHEAD = pytest.StashKey[Ahead]()


@pytest.fixture(scope="session")
def ahead(request: pytest.FixtureRequest) -> Iterator[Ahead]:
    ahead = request.config.stash[AHEAD] = Ahead(request.session.items)
    yield ahead
    ahead.end()


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    if AHEAD in config.stash:
        terminalreporter.write_line(f"hooks x faults: {config.stash[AHEAD].runs} runs")
