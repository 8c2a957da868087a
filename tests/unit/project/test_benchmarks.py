"""The benchmarks that are run by hand say what they take."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[3]


@pytest.mark.parametrize("name", ["engine_alone", "hook_cost", "profile_log"])
def test_help_is_printed(name: str) -> None:
    command = [sys.executable, PROJECT / f"benchmarks/{name}.py", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "usage:" in done.stdout
