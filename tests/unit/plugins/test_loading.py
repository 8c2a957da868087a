"""What is loaded, from where, and what a broken plug-in does not affect."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from schedhook import MapperPlugin
from schedhook.journal.journal import Journal
from schedhook.plugins.descriptors import StrategyPlugin
from schedhook.plugins.loading import load_plugins
from schedhook.plugins.registry import DISABLE_VARIABLE
from schedhook.values.config import Config, JournalSection, PluginsSection
from schedhook.values.errors import PluginError
from tests.unit.pluginkit import (
    ARGUMENTS,
    Install,
    load,
    logged,
)


def test_what_ships_loads_without_a_problem() -> None:
    plugins = load(third_party=False)
    assert plugins.problems == ()
    found = {(each.role, each.name) for each in plugins.listing()}
    assert found >= {
        ("mapper", "relative"),
        ("mapper", "nearest"),
        ("strategy", "migrate-process"),
        ("strategy", "move-pages"),
        ("backend", "native"),
        ("backend", "simulated"),
    }
    assert {each.source.package for each in plugins.listing()} == {"built-in"}


def test_adapters_read_their_notes_from_the_configured_journal(tmp_path: Path) -> None:
    path = tmp_path / "state" / "journal.db"
    plugins = load_plugins(
        Config(journal=JournalSection(path=str(path)), plugins=PluginsSection(third_party=False))
    )
    adapter = plugins.adapter("pbs", tmp_path)
    assert not path.exists()
    with Journal.open(path) as journal:
        journal.notes.set("pbs", "7.n1", "k", "text")
    assert adapter.notes.get("7.n1", "k") == "text"
    assert adapter.notes.jobs("k") == ("7.n1",)


def test_an_installed_package_is_found_by_its_entry_point(install: Install) -> None:
    install(
        "acme_mapper",
        name="acme",
        package="acme-numa",
        source="""
            from schedhook import MapperPlugin, hookimpl

            @hookimpl
            def schedhook_mappers():
                return [MapperPlugin(name="acme-map", summary="by Acme", map=print)]
        """,
    )
    plugins = load()
    assert plugins.mapper("acme-map").summary == "by Acme"
    (listed,) = [each for each in plugins.listing() if each.name == "acme-map"]
    assert (listed.role, listed.source.name) == ("mapper", "acme")
    assert listed.source.package == "acme-numa 1.5"


@pytest.mark.parametrize(
    ("environ", "keys"),
    [
        ({DISABLE_VARIABLE: "all"}, {}),
        ({DISABLE_VARIABLE: "other, copycat"}, {}),
        ({DISABLE_VARIABLE: "copy-cat"}, {}),
        ({}, {"third_party": False}),
        ({}, {"disabled": ("copycat",)}),
        ({}, {"disabled": ("copy-cat",)}),
    ],
)
def test_a_disabled_plug_in_is_not_even_imported(
    install: Install, environ: dict[str, str], keys: dict[str, Any]
) -> None:
    install("bad_duplicate", name="copycat", package="copy-cat")
    plugins = load(environ, **keys)
    assert plugins.mapper("relative").name == "relative"
    assert "bad_duplicate" not in sys.modules
    assert "stay" in load().names(MapperPlugin), "it is loaded if it is not disabled"


def test_disabling_another_name_changes_nothing(
    install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    install("bad_duplicate", name="copycat", package="copy-cat")
    assert "stay" in load({DISABLE_VARIABLE: "copy,cat,"}, disabled=("all",)).names(MapperPlugin)
    lines = logged(capsys)
    assert {line["name"] for line in lines} == {"copy", "cat"}
    assert {line["event"] for line in lines} == {"$SCHEDHOOK_DISABLE_PLUGINS has no effect"}


@pytest.mark.parametrize(
    ("module", "complaint"),
    [
        (
            "bad_import_error",
            "ModuleNotFoundError: No module named 'a_package_that_does_not_exist'",
        ),
        ("bad_exits_at_import", "SystemExit: this host is not licensed"),
        ("bad_signature", "mood"),
        ("bad_hook_name", "schedhook_mapper is not a plug-in hook"),
        ("bad_wrapper", "schedhook_mappers is a wrapper"),
        ("bad_no_hooks", "has no plug-in hooks"),
        ("bad_name", "'My Mapper' is not a name for a descriptor"),
        ("bad_raises", "schedhook_strategies: OSError: no such device"),
        ("bad_returns_nothing", "schedhook_mappers returned None instead of a list"),
        ("no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
    ],
)
def test_a_broken_plug_in_is_recorded_and_affects_no_other(
    install: Install, capsys: pytest.CaptureFixture[str], module: str, complaint: str
) -> None:
    install(module, name="broken", package="broken-one")
    install("bad_duplicate", name="sound", package="z-sound")
    plugins = load()
    (problem,) = plugins.problems
    assert str(problem.source) == "broken (broken-one 1.5)"
    assert complaint in problem.what
    assert "\n" not in problem.what
    assert plugins.mapper("nearest").name == "nearest"
    assert plugins.mapper("stay").name == "stay"
    for hook, arguments in ARGUMENTS.items():
        plugins.notify(hook, **arguments)
    (line,) = logged(capsys)
    assert line["level"] == "warning"
    assert line["plugin"] == "broken (broken-one 1.5)"
    with pytest.raises(PluginError, match="1 broken, see `schedhook plugins`"):
        plugins.mapper("what-the-broken-one-had")


def test_the_sound_part_of_a_broken_plug_in_is_used(install: Install) -> None:
    install("bad_raises")
    install("bad_return_type")
    plugins = load()
    assert plugins.mapper("sound").name == "sound"
    assert plugins.mapper("in-place").name == "in-place"
    assert {"misplaced", "bare"}.isdisjoint(plugins.names(StrategyPlugin))
    assert "misplaced" not in plugins.names(MapperPlugin)
    whats = [each.what for each in plugins.problems if each.source.name == "bad-return-type"]
    assert len(whats) == 2
    assert any("instead of a list" in what for what in whats)
    assert any("instead of a MapperPlugin" in what for what in whats)


def test_the_user_may_interrupt_the_loading(install: Install) -> None:
    install("bad_interrupted")
    with pytest.raises(KeyboardInterrupt):
        load()


def test_a_module_named_by_two_entry_points_is_loaded_once(install: Install) -> None:
    install("bad_duplicate", name="first", package="copy-cat")
    install("bad_duplicate", name="second", package="copy-cat")
    plugins = load()
    (problem,) = plugins.problems
    assert problem.source.name == "second"
    assert "is the same as first (copy-cat 1.5)" in problem.what
    assert plugins.mapper("stay").name == "stay"


def test_unreadable_package_metadata_is_only_recorded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(**_: object) -> None:
        raise ValueError("the metadata of a package is garbage")

    monkeypatch.setattr("importlib.metadata.entry_points", broken)
    plugins = load()
    (problem,) = plugins.problems
    assert "garbage" in problem.what
    assert plugins.mapper("relative").name == "relative"


def modules_after(statements: str) -> set[str]:
    code = f"{statements}\nimport sys\nprint(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    return set(result.stdout.split())


def test_importing_the_package_imports_nothing_heavy() -> None:
    loaded = modules_after("import schedhook")
    assert "schedhook" in loaded
    assert {"pluggy", "schedhook.plugins.hookspecs", "dataclasses"}.isdisjoint(loaded)


def test_loading_the_plug_ins_imports_nothing_heavy() -> None:
    loaded = modules_after(
        "from schedhook.values.config import Config\n"
        "from schedhook.plugins.loading import load_plugins\n"
        "plugins = load_plugins(Config(), environ={'SCHEDHOOK_DISABLE_PLUGINS': 'all'})\n"
        "assert not plugins.problems, plugins.problems\n"
    )
    assert "schedhook_plugins.mappers" in loaded
    heavy = {"rich", "click", "structlog", "tenacity", "importlib.metadata", "tomllib"}
    assert heavy.isdisjoint(set(loaded) - set(modules_after("import pluggy")))
    assert "schedhook.backends.native._core" not in loaded
