"""Pictures: any text stays text, and many processes stay short."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedhook.cli.output.charts import Bar, Chart, Group, Tone
from schedhook.cli.output.html.picture import to_html
from schedhook.cli.output.svg import to_svg
from schedhook.cli.output.text import cut
from schedhook.testing.hosts import write_file
from schedhook.values.text import printable
from tests.unit.clikit import Run
from tests.unit.picturekit import Page, texts
from tests.unit.screenkit import SCATTERED, make_host


@pytest.fixture
def host(tmp_path: Path) -> Path:
    return make_host(tmp_path / "host", SCATTERED)


@pytest.mark.parametrize("kind", ["svg", "html"])
def test_a_hostile_command_stays_text(run: Run, host: Path, tmp_path: Path, kind: str) -> None:
    file = tmp_path / "x"
    assert run("show", "--root", host, "--pid", 7300, f"--{kind}", file)[0] == 0
    page = Page(file.read_text())
    assert "script" not in page.tags
    assert not page.links
    assert "<script>alert(1)</script>&\"'[red]" in page.text


def test_a_picture_says_of_which_host_it_is(run: Run, host: Path, tmp_path: Path) -> None:
    """With --root the snapshot's name, not that of the host where the command runs."""
    write_file(host, "proc/sys/kernel/hostname", "node07\n")
    assert run("show", "--root", host, "--svg", tmp_path / "x.svg")[0] == 0
    assert any(text.startswith("node07, 20") for text in texts((tmp_path / "x.svg").read_text()))


@given(st.text().map(printable))
def test_no_text_breaks_a_picture(text: str) -> None:
    bars = (Bar(name="node 0", parts=((Tone.HOME, 1),), note=text),)
    chart = Chart(
        title=text, facts=(text,), groups=(Group(title=text, bars=bars, scale=1, note=text),)
    )
    svg = to_svg(chart, "host07")
    assert not text or cut(text, 120) in texts(svg)
    names = {name for each in ElementTree.fromstring(svg).iter() for name in each.attrib}
    assert not {name for name in names if "href" in name or name.startswith("on")}
    assert text in Page(to_html(chart, "host07")).text


def test_pictures_of_many_processes_stay_short() -> None:
    bars = (Bar(name="node 0", parts=((Tone.HOME, 1),)),)
    groups = tuple(Group(title=f"process {n}", bars=bars, scale=1) for n in range(500))
    svg = to_svg(Chart(title="x", facts=(), groups=groups), "host07")
    assert "and 467 more; --json has all" in texts(svg)
    assert float(ElementTree.fromstring(svg).get("height", "")) < 2500
