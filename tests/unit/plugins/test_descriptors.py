"""Names and summaries of descriptors."""

from __future__ import annotations

from typing import Any

import pytest

from schedhook import MapperPlugin
from schedhook.values.errors import PluginError
from tests.unit.pluginkit import (
    a_map,
)


@pytest.mark.parametrize("name", ["a", "move-pages", "x9", "a-"])
def test_good_names(name: str) -> None:
    assert MapperPlugin(name=name, summary="s", map=a_map).name == name


@pytest.mark.parametrize("name", ["", "A", "9a", "-a", "a_b", "a b", "a\n", "ä", None, 7])
def test_bad_names(name: Any) -> None:
    with pytest.raises(PluginError, match="is not a name for a descriptor"):
        MapperPlugin(name=name, summary="s", map=a_map)


@pytest.mark.parametrize("summary", ["", "two\nlines", None])
def test_bad_summaries(summary: Any) -> None:
    with pytest.raises(PluginError, match="one line"):
        MapperPlugin(name="a", summary=summary, map=a_map)
