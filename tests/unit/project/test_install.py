"""The install that the tests use is the editable one of this checkout."""

from __future__ import annotations

from pathlib import Path

import schedhook
import schedhook_plugins

PROJECT = Path(__file__).parents[3]


def test_the_tests_import_this_checkout() -> None:
    """A copy in site-packages would hide every later change from the tests."""
    assert Path(schedhook.__file__).parent == PROJECT / "schedhook"
    assert Path(schedhook_plugins.__file__).resolve().parent == PROJECT / "plugins"
