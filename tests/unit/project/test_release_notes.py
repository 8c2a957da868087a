"""The release workflow's check of the tag, and the text of a release."""

from __future__ import annotations

import runpy
import shutil
from pathlib import Path
from typing import Any

import pytest

from schedhook import __version__

PROJECT = Path(__file__).parents[3]


@pytest.fixture
def program(tmp_path: Path) -> dict[str, Any]:
    """Return the program, in a project whose version is released with two lines of changes."""
    for name in ("packaging/release_notes.py", "schedhook/__init__.py"):
        (tmp_path / name).parent.mkdir()
        shutil.copy(PROJECT / name, tmp_path / name)
    (tmp_path / "CHANGELOG.md").write_text(
        f"# Changelog\n\n## [Unreleased]\n\n- later\n\n## [{__version__}] - 2026-12-01\n\n"
        "- one\n- two\n\n## [0.0.1] - 2026-01-01\n\n- old\n"
    )
    return runpy.run_path(str(tmp_path / "packaging/release_notes.py"))


def test_the_section_of_the_version_is_printed(program: dict[str, Any]) -> None:
    assert program["notes"](f"v{__version__}") == "- one\n- two\n"


@pytest.mark.parametrize("tag", ["v9.9.9", __version__, ""])
def test_a_tag_of_another_version_is_refused(program: dict[str, Any], tag: str) -> None:
    with pytest.raises(SystemExit, match=rf"is not v{__version__}"):
        program["notes"](tag)


def test_a_version_without_a_date_in_the_changelog_is_refused() -> None:
    """As it is here until the day of the release."""
    here = runpy.run_path(str(PROJECT / "packaging/release_notes.py"))
    assert f"## [{__version__}]" in (PROJECT / "CHANGELOG.md").read_text()
    if f"## [{__version__}] - " not in (PROJECT / "CHANGELOG.md").read_text():
        with pytest.raises(SystemExit, match="has no heading"):
            here["notes"](f"v{__version__}")
