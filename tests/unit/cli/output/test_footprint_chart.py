"""Pictures of where memory is."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.clikit import Run
from tests.unit.picturekit import texts
from tests.unit.screenkit import SCATTERED, make_host


@pytest.fixture
def host(tmp_path: Path) -> Path:
    return make_host(tmp_path / "host", SCATTERED)


@pytest.mark.parametrize("target", [[], ["--job", "73"], ["--pid", "7300"]])
def test_a_footprint(run: Run, host: Path, tmp_path: Path, target: list[str]) -> None:
    file = tmp_path / "x.svg"
    assert run("show", "--root", host, *target, "--svg", file)[0] == 0
    found = texts(file.read_text())
    assert {"on-node", "off-node", "node 252", "130.0 MiB"} <= set(found)
