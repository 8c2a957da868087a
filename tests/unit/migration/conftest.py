"""Fixtures for the tests of migration."""

from __future__ import annotations

from typing import Any

import pytest

from schedhook.backends.simulated.target import SimulatedTarget
from schedhook.values.model import Area


@pytest.fixture
def sweeps(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Return the address ranges of the sweeps, which grow."""
    seen = list[tuple[int, int]]()
    sweep = SimulatedTarget.sweep

    def watched(self: SimulatedTarget, area: Area, start: int, end: int, *rest: Any, **more: Any):
        seen.append((start, end))
        return sweep(self, area, start, end, *rest, **more)

    monkeypatch.setattr(SimulatedTarget, "sweep", watched)
    return seen
