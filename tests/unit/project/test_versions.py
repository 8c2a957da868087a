"""Every command works with the lowest versions that pyproject.toml allows: those of Debian 12."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import schedhook
import schedhook_plugins
from tests.release.versions import lowest

TOUR = Path(__file__).parents[2] / "release/tour.py"


@pytest.mark.timeout(660)  # the sum of those below, which say what took long
def test_every_command_runs_with_the_lowest_versions(tmp_path: Path) -> None:
    """The installed schedhook, beside nothing but what it declares."""
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "env"], check=True, timeout=120)
    python = tmp_path / "env/bin/python"
    environ = os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    words = [python, "-m", "pip", "install", "--quiet", *lowest()]
    subprocess.run(words, check=True, timeout=200, env=environ)
    (packages,) = (tmp_path / "env/lib").glob("python3*/site-packages")
    for package in (schedhook, schedhook_plugins):
        installed = Path(str(package.__file__)).parent
        (packages / package.__name__).symlink_to(installed.resolve())
    tour = [python, "-P", TOUR]
    done = subprocess.run(tour, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stderr
