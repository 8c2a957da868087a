"""The strategy and the observer on the simulated backend, by schedhook's fixtures for pytest."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest
import schedhook_largest_first

from schedhook.testing import SimulatedArea, SimulatedBackend, StrategyContract
from schedhook.values.model import Report


class TestContract(StrategyContract):
    """The tests that every strategy must pass."""

    plugin = schedhook_largest_first
    name = "largest-first"


def test_the_largest_process_moves_first(
    schedhook_backend: SimulatedBackend, schedhook_relocate: Callable[..., Report]
) -> None:
    for pid, pages in ((100, 5), (101, 50), (102, 20)):
        area = SimulatedArea(start=0x10000, nodes=[0] * pages)
        schedhook_backend.add_process(pid, areas=[area])
    moved: list[int] = []
    schedhook_relocate(
        schedhook_largest_first,
        strategy="largest-first",
        threads=1,
        progress=lambda done, _planned: moved.append(done),
    )
    assert moved == [50 * 4096, 70 * 4096, 75 * 4096]


def test_the_observer_logs_how_much_moved(
    caplog: pytest.LogCaptureFixture,
    schedhook_backend: SimulatedBackend,
    schedhook_relocate: Callable[..., Report],
) -> None:
    caplog.set_level(logging.INFO)
    schedhook_backend.add_process(100, areas=[SimulatedArea(start=0x10000, nodes=[0] * 5)])
    schedhook_relocate(schedhook_largest_first)
    assert f"moved {5 * 4096} bytes" in caplog.text
