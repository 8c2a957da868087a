"""Looking up descriptors by name."""

from __future__ import annotations

import pytest

from schedhook import MapperPlugin, hookimpl
from schedhook.plugins.descriptors import StrategyPlugin
from schedhook.values.errors import PluginError
from tests.unit.pluginkit import (
    Install,
    a_map,
    given,
    load,
    module,
    provides,
)


def test_unknown_names_list_those_that_exist() -> None:
    plugins = given(provides("alpha"))
    with pytest.raises(PluginError, match=r"no mapper is called 'beta'; there are: alpha, nearest"):
        plugins.mapper("beta")
    with pytest.raises(PluginError, match="no scheduler is called 'lsf'; there are: "):
        plugins.scheduler("lsf")
    with pytest.raises(PluginError, match=r"no strategy is called 'relative'"):
        plugins.strategy("relative")
    with pytest.raises(PluginError, match=r"no backend is called ''"):
        plugins.backend("")


def test_a_name_of_two_plug_ins_fails_only_if_it_is_chosen(install: Install) -> None:
    install("bad_duplicate", name="copycat", package="copy-cat")
    plugins = load()
    with pytest.raises(PluginError) as caught:
        plugins.mapper("relative")
    assert "copycat (copy-cat 1.5)" in str(caught.value)
    assert "schedhook_plugins.mappers (built-in)" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert plugins.mapper("nearest").name == "nearest"
    assert plugins.mapper("stay").map is not None
    assert plugins.problems == ()
    listed = [each.source.package for each in plugins.listing() if each.name == "relative"]
    assert listed == ["built-in", "copy-cat 1.5"]


def test_two_roles_may_use_one_name() -> None:
    @hookimpl
    def schedhook_strategies() -> list[StrategyPlugin]:
        return [StrategyPlugin(name="relative", summary="a strategy", move=lambda _: None)]

    plugins = given(module("other", schedhook_strategies=schedhook_strategies))
    assert plugins.strategy("relative").summary == "a strategy"
    assert plugins.mapper("relative").summary != "a strategy"


def test_a_name_provided_twice_by_one_plug_in_is_ambiguous_too() -> None:
    @hookimpl
    def schedhook_mappers() -> list[MapperPlugin]:
        return [MapperPlugin(name="twin", summary=text, map=a_map) for text in ("first", "second")]

    plugins = given(module("twins", schedhook_mappers=schedhook_mappers))
    with pytest.raises(PluginError, match=r"twins \(given\) and twins \(given\)"):
        plugins.mapper("twin")
