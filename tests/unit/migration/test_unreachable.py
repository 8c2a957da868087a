"""Memory that move_pages(2) does not find is moved by another call, or counted."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from schedhook import StrategyPlugin, hookimpl
from schedhook.backends.simulated import PAGE, SimulatedArea, SimulatedBackend
from schedhook.roles.strategy import PageChoice, Pages
from schedhook.testing import relocate_simulated
from schedhook.values.model import Outcome, Report

AT = 0x7F0000000000


@pytest.fixture
def backend() -> SimulatedBackend:
    """Return 16 pages on node 0, the second and third unreachable, and 8 on node 2."""
    backend = SimulatedBackend()
    backend.add_process(100, areas=[SimulatedArea(start=AT, nodes=[0] * 16 + [2] * 8)])
    for page in (1, 2):
        backend.hide(100, AT + page * PAGE)
    return backend


def residency(report: Report) -> dict[int, int]:
    (process,) = report.processes
    return {node: size // PAGE for node, size in process.residency_after.items()}


def test_migrate_pages_moves_it(backend: SimulatedBackend) -> None:
    report = relocate_simulated(backend)
    assert report.outcome is Outcome.COMPLETE
    assert report.bytes_moved == 16 * PAGE
    assert residency(report) == {2: 24}
    assert "migrate_pages(2)" in report.notes[0]


@pytest.mark.parametrize(
    "request_",
    [{"bandwidth_mb_s": 1000.0}, {"gentle": True}, {"kinds": frozenset({"anon"})}],
    ids=str,
)
def test_it_stays_if_one_call_could_not_keep_to_the_request(
    backend: SimulatedBackend, request_: dict[str, Any]
) -> None:
    report = relocate_simulated(backend, **request_)
    assert report.outcome is Outcome.PARTIAL
    assert report.left_by_reason == {"hidden": 2 * PAGE}
    assert residency(report) == {0: 2, 2: 22}


def test_it_is_counted_if_nodes_change_places(backend: SimulatedBackend) -> None:
    report = relocate_simulated(backend, node_map="0:2,2:0")
    assert report.outcome is Outcome.PARTIAL
    assert report.left_by_reason == {"hidden": 2 * PAGE}
    assert report.bytes_moved == 22 * PAGE
    assert residency(report) == {0: 10, 2: 14}


def test_it_moves_when_it_shows_where_nodes_change_places(backend: SimulatedBackend) -> None:
    for page in (1, 2):
        backend.hide(100, AT + page * PAGE, attempts=page)
    report = relocate_simulated(backend, node_map="0:2,2:0")
    assert (report.outcome, report.attempts) == (Outcome.COMPLETE, 3)
    assert residency(report) == {0: 8, 2: 16}


def test_it_moves_in_each_step_of_a_map_that_overlaps(backend: SimulatedBackend) -> None:
    backend.hide(100, AT + 17 * PAGE)
    report = relocate_simulated(backend, node_map="0:2,2:1")
    assert report.outcome is Outcome.COMPLETE
    assert residency(report) == {1: 8, 2: 16}


@pytest.mark.parametrize("node_map", ["0:2", "0:2,2:0"])
def test_a_caller_that_does_not_see_it_counts_it(node_map: str) -> None:
    backend = SimulatedBackend(may_move_shared=False)
    backend.add_process(100, areas=[SimulatedArea(start=AT, nodes=[0] * 16 + [2] * 8)])
    backend.hide(100, AT + PAGE)
    report = relocate_simulated(backend, node_map=node_map, bandwidth_mb_s=1000.0)
    assert report.left_by_reason == {"hidden": PAGE}


def test_it_is_distinguished_from_busy_pages(backend: SimulatedBackend) -> None:
    for page in (1, 2, 7):  # the first two are unreachable as well
        backend.fail(100, AT + page * PAGE, always=errno.EBUSY)
    report = relocate_simulated(backend)
    assert report.outcome is Outcome.PARTIAL
    assert report.left_by_reason == {"hidden": 2 * PAGE, "EBUSY": PAGE}
    assert residency(report) == {0: 3, 2: 21}


class Everything:
    """A strategy that wants each page on node 3."""

    def __init__(self, backend: SimulatedBackend) -> None:
        self.backend = backend
        self.late = False
        """Whether one more page becomes unreachable once it has been asked about."""

    @hookimpl
    def schedhook_strategies(self) -> list[StrategyPlugin]:
        return [
            StrategyPlugin(name="everything", summary="for tests", choose_nodes=self.choose_nodes)
        ]

    def choose_nodes(self, _move: object) -> PageChoice:
        return self.choose

    def choose(self, _pages: Pages) -> int:
        if self.late:
            self.backend.hide(100, AT + 7 * PAGE)
        return 3


def test_what_a_strategy_decides_page_by_page_is_counted_once(backend: SimulatedBackend) -> None:
    backend.fail(100, AT + 5 * PAGE, always=errno.EBUSY)
    plugin = Everything(backend)
    report = relocate_simulated(backend, plugin, strategy="everything", node_map="0:3,3:1")
    assert report.kept == {"hidden": 2 * PAGE}
    assert report.left_by_reason == {"EBUSY": PAGE}
    assert residency(report) == {0: 3, 2: 8, 3: 13}


@pytest.mark.parametrize("late", [False, True])
def test_a_strategy_that_decides_page_by_page_is_not_asked_about_it(
    backend: SimulatedBackend, late: bool
) -> None:
    plugin = Everything(backend)
    plugin.late = late
    report = relocate_simulated(backend, plugin, strategy="everything", node_map="0:3")
    assert report.kept == {"hidden": 2 * PAGE}
    assert report.left_by_reason == ({"hidden": PAGE} if late else {})
    assert residency(report) == {0: 2 + late, 2: 8, 3: 14 - late}
