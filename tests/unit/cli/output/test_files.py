"""Pictures: what is in them, that nothing gets out of the text, and where they are written."""

from __future__ import annotations

import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedhook.cli.main import run as run_command
from schedhook.cli.output.charts import Bar, Chart, Group, Tone
from schedhook.cli.output.html import to_html
from schedhook.cli.output.svg import to_svg
from schedhook.cli.output.text import cut
from schedhook.values.text import printable
from tests.unit.screenkit import MIB, SCATTERED, make_host

SVG = "{http://www.w3.org/2000/svg}"
SIMULATED = ("--backend", "simulated", "--reserve", "1")
Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command; returns its exit status, and what it said where that is no success."""

    def run(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["schedhook", *(str(each) for each in arguments)])
        with pytest.raises(SystemExit) as leave:
            run_command()
        assert isinstance(leave.value.code, int)
        printed = capsys.readouterr()
        return leave.value.code, printed.err + (printed.out if leave.value.code else "")

    return run


@pytest.fixture
def host(tmp_path: Path) -> Path:
    return make_host(tmp_path / "host", SCATTERED)


def texts(svg: str) -> list[str]:
    return [each.text or "" for each in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def widths(svg: str, colour: str) -> list[float]:
    boxes = ElementTree.fromstring(svg).iter(f"{SVG}rect")
    return [float(box.get("width", "")) for box in boxes if box.get("fill") == colour][1:]


def test_a_relocation_before_and_after(run: Run, host: Path, tmp_path: Path) -> None:
    file = tmp_path / "x.svg"
    command = ["relocate", "--root", host, "--job", 72, *SIMULATED, "--map", "0:252"]
    assert run(*command, "--svg", file) == (0, "")
    svg = file.read_text()
    found = texts(svg)
    assert "job 72: complete, 1.1 GiB moved" in found
    assert "nodes 0 to 252, strategy move-pages" in " ".join(found)
    assert {"all processes", "node 0", "node 252", "before", "after"} <= set(found)
    # Drawn to scale: of 2,303 MiB afterwards, 1,102 MiB were and 2 MiB still are on node 0.
    whole, process, other = 2303, 1200, 1103
    assert widths(svg, "#9aa5b1") == pytest.approx(
        [440 * 1104 / whole, 440 * 1203 / whole, 440 * 2 / process, 440, 440 * 1102 / other, 1.2],
        abs=0.6,
    )


def test_a_plan_shows_what_would_be(run: Run, host: Path, tmp_path: Path) -> None:
    file = tmp_path / "x.svg"
    command = ["plan", "--root", host, "--pid", 7201, *SIMULATED, "--map", "0:252"]
    assert run(*command, "--svg", file) == (0, "")
    found = texts(file.read_text())
    assert "planned, 1.1 GiB to move" in found
    assert found.count("1.1 GiB") == 2  # on node 0 before, on node 252 after
    assert found.count("2.0 MiB") == 1  # what stays


@pytest.mark.parametrize("target", [[], ["--job", "73"], ["--pid", "7300"]])
def test_a_footprint(run: Run, host: Path, tmp_path: Path, target: list[str]) -> None:
    file = tmp_path / "x.svg"
    assert run("show", "--root", host, *target, "--svg", file) == (0, "")
    found = texts(file.read_text())
    assert {"on-node", "off-node", "node 252", "130.0 MiB"} <= set(found)


class _Page(HTMLParser):
    """Elements and text as a browser would see them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [
            f"{name}={value}"
            for name, value in attrs
            if name in ("src", "href", "xlink:href") or name.startswith("on")
        ]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_page_has_the_picture_and_the_numbers(run: Run, host: Path, tmp_path: Path) -> None:
    file = tmp_path / "x.html"
    assert run("show", "--root", host, "--job", 72, "--html", file) == (0, "")
    page = _Page(file.read_text())
    assert {"svg", "table"} <= set(page.tags)
    assert f"{1100 * MIB} bytes" in page.text


@pytest.mark.parametrize("kind", ["svg", "html"])
def test_a_hostile_command_stays_text(run: Run, host: Path, tmp_path: Path, kind: str) -> None:
    file = tmp_path / "x"
    assert run("show", "--root", host, "--pid", 7300, f"--{kind}", file) == (0, "")
    page = _Page(file.read_text())
    assert "script" not in page.tags
    assert not page.links
    assert "<script>alert(1)</script>&\"'[red]" in page.text


@given(st.text().map(printable))
def test_no_text_breaks_a_picture(text: str) -> None:
    bars = (Bar(node=0, parts=((Tone.HOME, 1),), note=text),)
    chart = Chart(
        title=text, facts=(text,), groups=(Group(title=text, bars=bars, scale=1, note=text),)
    )
    svg = to_svg(chart, "host07")
    assert not text or cut(text, 120) in texts(svg)
    names = {name for each in ElementTree.fromstring(svg).iter() for name in each.attrib}
    assert not {name for name in names if "href" in name or name.startswith("on")}
    assert text in _Page(to_html(chart, "host07")).text


def test_pictures_of_many_processes_stay_short() -> None:
    bars = (Bar(node=0, parts=((Tone.HOME, 1),)),)
    groups = tuple(Group(title=f"process {n}", bars=bars, scale=1) for n in range(500))
    svg = to_svg(Chart(title="x", facts=(), groups=groups), "host07")
    assert "and 467 more; --json has all" in texts(svg)
    assert float(ElementTree.fromstring(svg).get("height", "")) < 2500


# -- files -----------------------------------------------------------------------------------------


def test_a_place_that_cannot_be_written_to_is_told_before_anything_moves(
    run: Run, host: Path, tmp_path: Path
) -> None:
    target = tmp_path / "elsewhere"
    target.write_text("precious")
    (tmp_path / "link").symlink_to(target)
    for place, words in (
        (tmp_path / "link", "plain file"),
        (tmp_path, "plain file"),
        (Path("/dev/null"), "plain file"),
        (tmp_path / "no/x.svg", "cannot write"),
        (target / "x.svg", "Not a directory"),
    ):
        command = ["relocate", "--root", host, "--job", 72, *SIMULATED, "--map", "0:252"]
        status, said = run(*command, "--svg", place)
        assert (status, said.count("\n")) == (2, 1)
        assert words in said
    assert target.read_text() == "precious"


def test_a_file_is_replaced_whole_or_not_at_all(
    run: Run, host: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "x.svg"
    file.write_text("the one before")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fchmod", fail)
        status, said = run("show", "--root", host, "--svg", file)
    assert status == 1
    assert said.startswith(f"schedhook: cannot write {file}: No space left on device\n")
    assert file.read_text() == "the one before"
    assert run("show", "--root", host, "--svg", file) == (0, "")
    assert texts(file.read_text())[0] == "3 jobs on this host"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["host", "x.svg"]


def test_watching_takes_no_pictures(run: Run, host: Path, tmp_path: Path) -> None:
    status, said = run("show", "--root", host, "--watch", "--svg", tmp_path / "x.svg")
    assert status == 2
    assert "--watch" in said
