"""Fixtures of the agent's tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.agent.one_job import OneJob


@pytest.fixture
def one(tmp_path: Path) -> OneJob:
    """One job of two tasks, on nodes 0 and 1."""
    return OneJob(tmp_path)
