"""The picture of a relocation in the documentation is what the program writes."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[3]


def without_times(svg: str) -> str:
    """Return the picture without when it was made, and how long the relocation took."""
    return re.sub(r"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9:]{8}|[0-9.]+ s</text>", "TIME", svg)


def test_the_picture_is_what_the_program_writes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = runpy.run_path(str(PROJECT / "docs/picture.py"))
    script["draw"](tmp_path / "picture.svg")
    assert "complete" in capsys.readouterr().out
    drawn, kept = (path.read_text() for path in (tmp_path / "picture.svg", script["PICTURE"]))
    assert without_times(drawn) == without_times(kept), "run python docs/picture.py"
