"""Plans on a terminal."""

from __future__ import annotations

from pathlib import Path

from tests.unit.clikit import SIMULATED, Run
from tests.unit.screenkit import MANY, make_host


def test_a_plan_is_a_matrix(run: Run, four: Path) -> None:
    _, out, _ = run("plan", "--pid", 7300, *SIMULATED, "--map", "0:2,1:3", "--root", four)
    rows = [line.split() for line in out.splitlines()]
    assert ["from", "\\", "to", "2", "3"] in rows
    assert ["0", "100.0", "MiB"] in rows
    assert ["1", "110.0", "MiB"] in rows
    assert ["arriving", "100.0", "MiB", "110.0", "MiB"] in rows


def test_a_plan_too_wide_for_the_terminal_is_a_list(run: Run, tmp_path: Path) -> None:
    make_host(tmp_path, MANY)
    _, out, _ = run(
        "plan", "--pid", 7300, *SIMULATED, "--from", "0-31", "--to", "32-63", "--root", tmp_path
    )
    rows = [line.split() for line in out.splitlines()]
    assert ["from", "to", "to", "move", "free", "cache", "to", "drop"] in rows
    assert ["31", "63", "130.0", "MiB", "57.5", "GiB"] in rows
