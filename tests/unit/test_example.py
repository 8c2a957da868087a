"""The example plug-in, installed and used as a stranger would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from schedhook.testing.hosts import FakeArea, FakeNode, write_host, write_process

EXAMPLE = Path(__file__).parents[2] / "plugins/example"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment in which it is installed."""
    place = tmp_path_factory.mktemp("site")
    source = tmp_path_factory.mktemp("source")
    # setuptools writes beside its sources.
    subprocess.run(["cp", "-r", f"{EXAMPLE}/.", str(source)], check=True)
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation",
         "--target", str(place), str(source)],
        check=True, timeout=300,
    )  # fmt: skip
    return {**os.environ, "PYTHONPATH": str(place)}


def schedhook(environment: dict[str, str], *arguments: object) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "schedhook.cli.main", *map(str, arguments), "--json"],
        check=True, capture_output=True, text=True, env=environment, timeout=120,
    )  # fmt: skip
    answer = json.loads(done.stdout)
    assert isinstance(answer, dict)
    return answer


def test_it_is_listed_with_its_package(installed: dict[str, str]) -> None:
    answer = schedhook(installed, "plugins")
    assert answer["problems"] == []
    assert {
        "role": "strategy",
        "name": "largest-first",
        "summary": "the largest process first",
        "provider": "largest-first",
        "package": "schedhook-largest-first 1.0",
    } in answer["plugins"]  # type: ignore[operator]


def test_it_is_chosen_by_name(installed: dict[str, str], tmp_path: Path) -> None:
    write_host(tmp_path, nodes=[FakeNode(number=n, cpus=str(n)) for n in range(4)])
    area = FakeArea(start=0x7F0000000000, size=1 << 20, pages={0: 256})
    write_process(tmp_path, 100, areas=[area], nodes="0-3")
    report = schedhook(
        installed, "relocate", "--root", tmp_path, "--backend", "simulated", "--pid", 100,
        "--from", 0, "--to", 2, "--strategy", "largest-first",
    )  # fmt: skip
    assert (report["outcome"], report["strategy"]) == ("complete", "largest-first")


def test_its_own_tests_pass(installed: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "pytest", "-p", "no:cacheprovider", str(EXAMPLE)],
        check=False, capture_output=True, text=True, env=installed, cwd=EXAMPLE, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout
