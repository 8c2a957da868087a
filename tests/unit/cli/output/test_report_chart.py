"""Pictures of relocations: before and after, and of plans."""

from __future__ import annotations

from pathlib import Path

import pytest

from schedhook.cli.output.charts import Tone
from schedhook.cli.output.palette import LIGHT
from tests.unit.clikit import SIMULATED, Run
from tests.unit.picturekit import texts, widths
from tests.unit.screenkit import SCATTERED, make_host


@pytest.fixture
def host(tmp_path: Path) -> Path:
    return make_host(tmp_path / "host", SCATTERED)


def test_a_relocation_before_and_after(run: Run, host: Path, tmp_path: Path) -> None:
    file = tmp_path / "x.svg"
    command = ["relocate", "--root", host, "--job", 72, *SIMULATED, "--map", "0:252"]
    assert run(*command, "--svg", file)[0] == 0
    svg = file.read_text()
    found = texts(svg)
    assert "job 72: complete, 1.1 GiB moved" in found
    assert "nodes 0 to 252, strategy move-pages" in " ".join(found)
    assert {"all processes", "node 0", "node 252", "before", "after"} <= set(found)
    # All on one scale, whose longest bar is the 2,303 MiB that are on node 252 afterwards.
    before = [1104, 1203, 2, 1200, 1102, 3]
    assert widths(svg, LIGHT[Tone.BEFORE]) == pytest.approx(
        [440 * size / 2303 for size in before], abs=0.7
    )
    assert {"0", "512 MiB", "1 GiB", "1.5 GiB", "2 GiB"} <= set(found)


def test_a_plan_shows_what_would_be(run: Run, host: Path, tmp_path: Path) -> None:
    file = tmp_path / "x.svg"
    command = ["plan", "--root", host, "--pid", 7201, *SIMULATED, "--map", "0:252"]
    assert run(*command, "--svg", file)[0] == 0
    found = texts(file.read_text())
    assert "planned, 1.1 GiB to move" in found
    assert found.count("1.1 GiB") == 2  # on node 0 before, on node 252 after
    assert found.count("2.0 MiB") == 1  # what stays
