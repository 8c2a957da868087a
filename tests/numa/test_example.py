"""The example plug-in, installed as a third party's package, relocates a real job."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.numa.jobs import MIB, Job, cgroup

pytestmark = pytest.mark.nodes(4)

EXAMPLE = Path(__file__).parents[2] / "plugins/example"
SMALL, LARGE = 16, 64
ENOUGH = 0.999


@pytest.fixture
def installed(tmp_path: Path) -> dict[str, str]:
    """Return the environment variables with which the example is installed."""
    source, place = tmp_path / "source", tmp_path / "site"
    shutil.copytree(EXAMPLE, source)  # setuptools writes next to its sources
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation",
         "--disable-pip-version-check", "--target", place, source],
        check=True, timeout=300,
    )  # fmt: skip
    return {**os.environ, "PYTHONPATH": str(place)}


def test_it_relocates_a_job(installed: dict[str, str]) -> None:
    with (
        cgroup("example") as path,
        Job("anon", SMALL, 0, cgroup=path) as small,
        Job("anon", LARGE, 0, cgroup=path) as large,
    ):
        before = small.checksum(), large.checksum()
        done = subprocess.run(
            [sys.executable, "-P", "-c", "from schedhook.cli.main import run; run()", "relocate",
             "--cgroup", path, "--from", "0", "--to", "2", "--strategy", "largest-first", "--json"],
            check=False, capture_output=True, text=True, env=installed, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        report = json.loads(done.stdout)
        assert (report["outcome"], report["strategy"]) == ("complete", "largest-first")
        assert report["bytes_moved"] >= (SMALL + LARGE) * MIB
        assert min(small.share_on(2), large.share_on(2)) >= ENOUGH
        assert (small.checksum(), large.checksum()) == before
