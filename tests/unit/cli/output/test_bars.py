"""Bars on a terminal: their width and parts, with and without colour."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console  # noqa: TID253 - what bars are drawn on

from schedhook.cli.output.bars import draw_bar
from schedhook.cli.output.charts import Tone
from schedhook.cli.output.palette import DARK, LIGHT
from tests.unit.clikit import SCHEDHOOK, Run

COLOURS = re.compile(r"\x1b\[(?:[0-9]+;)*(?:3[0-7]|9[0-7])m")


@given(
    parts=st.lists(st.integers(0, 1 << 40), min_size=2, max_size=4),
    more=st.integers(0, 1 << 40),
    width=st.integers(8, 60),
)
def test_a_bar_has_its_width_and_shows_every_part(parts: list[int], more: int, width: int) -> None:
    text = draw_bar(
        list(zip(Tone, parts, strict=False)), max(sum(parts) + more, 1), width, Console(file=None)
    ).plain
    assert len(text) == width
    assert ("█" in text) == (parts[0] > 0)
    assert ("▒" in text) == (parts[1] > 0)


def test_no_character_and_no_colour_has_two_meanings() -> None:
    draws = [draw_bar([(tone, 1)], 1, 1, Console(file=None)).plain for tone in Tone]
    assert len(set(draws)) == len(Tone)
    for palette in (LIGHT, DARK):
        assert len(set(palette.values())) == len(palette) == len(Tone)


@pytest.mark.parametrize(
    "environ",
    [{}, {"FORCE_COLOR": "1", "TERM": "xterm", "NO_COLOR": "1"}],
    ids=["pipe", "NO_COLOR"],
)
def test_without_colour_the_bars_still_differ(
    run: Run, four: Path, environ: dict[str, str]
) -> None:
    _, out, _ = run("show", "--job", 72, "--root", four, **environ)
    assert not COLOURS.search(out)
    assert "▒▒▒▒" in out
    assert "████" in out


def test_bars_on_an_ascii_terminal(four: Path) -> None:
    done = subprocess.run(
        [*SCHEDHOOK, "show", "--job", "72", "--root", four],
        env={**os.environ, "PYTHONIOENCODING": "ascii", "COLUMNS": "80"},
        capture_output=True,
        check=True,
    )
    out = done.stdout.decode("ascii")
    assert "node 0   xxxxxxx" in out
    assert "node 3*  #######" in out
