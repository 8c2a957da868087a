"""The install that the tests use has the files of this checkout."""

from __future__ import annotations

from pathlib import Path

import pytest

import schedhook
import schedhook_plugins

PROJECT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("installed", "source"),
    [(schedhook.__file__, "schedhook"), (schedhook_plugins.__file__, "plugins")],
)
def test_the_tests_import_this_checkout(installed: str, source: str) -> None:
    """An old copy in site-packages would hide every later change from the tests."""
    there, here = Path(installed).parent, PROJECT / source
    files = [path for path in here.rglob("*.py") if "example" not in path.parts]
    assert files
    for path in files:
        assert (there / path.relative_to(here)).read_bytes() == path.read_bytes(), path
