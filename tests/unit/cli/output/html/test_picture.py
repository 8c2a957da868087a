"""Pages: the picture and the numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.browserkit import CUT_OFF, Browser
from tests.unit.clikit import SIMULATED, Run
from tests.unit.picturekit import Page
from tests.unit.screenkit import MIB, SCATTERED, make_host


@pytest.fixture
def host(tmp_path: Path) -> Path:
    return make_host(tmp_path / "host", SCATTERED)


def test_a_page_has_the_picture_and_the_numbers(run: Run, host: Path, tmp_path: Path) -> None:
    file = tmp_path / "x.html"
    assert run("show", "--root", host, "--job", 72, "--html", file)[0] == 0
    page = Page(file.read_text())
    assert {"svg", "table"} <= set(page.tags)
    assert f"{1100 * MIB} bytes" in page.text


@pytest.mark.parametrize(
    "command",
    [
        ["show"],
        ["show", "--job", 72],
        ["plan", "--job", 72, *SIMULATED, "--map", "0:252"],
        ["relocate", "--pid", 7300, *SIMULATED, "--map", "0:252"],
    ],
    ids=["jobs", "job", "plan", "hostile"],
)
def test_nothing_is_cut_off(
    run: Run, chromium: Browser, host: Path, tmp_path: Path, command: list[object]
) -> None:
    file = tmp_path / "x.html"
    name, *words = command
    assert run(name, "--root", host, *words, "--html", file)[0] == 0
    chromium.open(file)
    chromium.emulate()
    for width in (1280, 360):
        chromium.resize(width)
        assert chromium.evaluate(CUT_OFF) == []
