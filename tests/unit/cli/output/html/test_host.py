"""The page of a host in a browser: nothing of it is cut off, whatever the screen."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.browserkit import CUT_OFF, Browser
from tests.unit.cli.output.html.hostkit import write_journal
from tests.unit.clikit import Run
from tests.unit.screenkit import FOUR, MANY, make_host


@pytest.fixture(params=[FOUR, MANY], ids=["four", "many"])
def page(request: pytest.FixtureRequest, run: Run, tmp_path: Path) -> Path:
    host = make_host(tmp_path / "host", request.param)
    write_journal(host)
    config = tmp_path / "config.toml"
    config.write_text('[journal]\npath = "/journal/journal.db"\n')
    page = tmp_path / "host.html"
    assert run("report", "--root", host, "--config", config, "--html", page)[0] == 0
    return page


def test_nothing_is_cut_off(chromium: Browser, page: Path) -> None:
    chromium.open(page)
    for width in (1280, 360):
        chromium.resize(width)
        chromium.emulate()
        assert chromium.evaluate("innerWidth") == width
        assert chromium.evaluate(CUT_OFF) == []
    chromium.resize(718)  # A4 without margins
    chromium.emulate(media="print")
    assert chromium.evaluate(CUT_OFF) == []


def test_what_is_cut_off_would_be_found(chromium: Browser, page: Path) -> None:
    chromium.open(page)
    chromium.resize(360)
    chromium.emulate()
    chromium.evaluate("document.querySelector('table').style.width = '361px'")
    assert chromium.evaluate(CUT_OFF) != []


def test_the_axis_fits_the_bars(chromium: Browser, page: Path) -> None:
    """The bar of a node with 24.9 of 64 GiB in use ends where the axis has that size."""
    chromium.open(page)
    chromium.resize(1280)
    ends = """(() => {
        const [figure] = document.querySelectorAll("figure");
        const bar = figure.querySelector(".bar svg").getBoundingClientRect();
        const boxes = [...figure.querySelector(".bar").querySelectorAll("rect")];
        const marks = [...figure.querySelectorAll(".axis text")];
        const half = marks.find(each => each.textContent == "32 GiB").getBoundingClientRect();
        return [
            (boxes.at(-1).getBoundingClientRect().right - bar.left) / bar.width,
            ((half.left + half.right) / 2 - bar.left) / bar.width,
        ];
    })()"""
    used, half = chromium.evaluate(ends)
    assert used == pytest.approx((65536 - 40000) / 65536, abs=0.01)
    assert half == pytest.approx(0.5, abs=0.01)


def test_it_loads_nothing_and_is_dark_on_a_dark_screen(chromium: Browser, page: Path) -> None:
    chromium.open(page)
    loaded = "performance.getEntriesByType('resource').length"
    assert chromium.evaluate(loaded) == 0
    colours = {}
    for scheme in ("light", "dark"):
        chromium.emulate(scheme=scheme)
        colours[scheme] = chromium.evaluate("getComputedStyle(document.body).backgroundColor")
    assert colours["light"] == "rgb(255, 255, 255)"
    assert colours["dark"] == "rgb(20, 24, 29)"
