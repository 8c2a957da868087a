"""Pages: the picture and the numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.clikit import Run
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
