"""Observers: all are called, even if one fails, and each may refuse a migration."""

from __future__ import annotations

import pytest

from schedhook.plugins.loading import load_plugins
from schedhook.plugins.registry import DISABLE_VARIABLE
from schedhook.values import log
from schedhook.values.config import Config
from schedhook.values.errors import MigrationRefused
from tests.unit.pluginkit import (
    ARGUMENTS,
    HOOKS,
    Install,
    Refusing,
    Watcher,
    given,
    load,
    logged,
    provides,
)


def test_every_observer_hook_has_arguments_for_the_tests() -> None:
    registering = {
        "schedhook_schedulers",
        "schedhook_mappers",
        "schedhook_strategies",
        "schedhook_backends",
    }
    assert set(HOOKS) - registering - {"schedhook_doctor"} == set(ARGUMENTS)


@pytest.mark.parametrize("hook", ARGUMENTS)
def test_a_failing_observer_is_logged_and_the_others_are_called(
    install: Install, capsys: pytest.CaptureFixture[str], hook: str
) -> None:
    install("bad_observer", name="grumpy", package="grumpy-tools")
    before, after = Watcher(), Watcher()
    plugins = load_plugins(Config(), extra=[after], environ={DISABLE_VARIABLE: ""})
    plugins.register(plugins.listing()[0].source, before)
    plugins.notify(hook, **ARGUMENTS[hook])
    assert before.seen == after.seen == list(ARGUMENTS[hook].values())
    (line,) = logged(capsys)
    assert line["level"] == "warning"
    assert line["plugin"] == "grumpy (grumpy-tools 1.5)"
    assert line["hook"] == hook
    assert "\n" not in line["error"]


def test_a_refusal_before_the_migration_stops_it_and_names_the_plug_in() -> None:
    with pytest.raises(MigrationRefused, match=r"^Refusing \(given\): not by s$"):
        given(Watcher(), Refusing()).notify(
            "schedhook_before_migrate", **ARGUMENTS["schedhook_before_migrate"]
        )


def test_a_refusal_stops_the_migration_even_if_another_observer_fails(install: Install) -> None:
    install("bad_observer")
    for plugins in (
        load_plugins(Config(), extra=[Refusing()], environ={}),
        load_plugins(Config(), extra=[Watcher(), Refusing()], environ={}),
    ):
        with pytest.raises(MigrationRefused):
            plugins.notify("schedhook_before_migrate", **ARGUMENTS["schedhook_before_migrate"])


def test_observers_are_listed_with_what_they_see() -> None:
    plugins = given(Refusing(), Watcher(), provides("alpha"))
    listed = {each.name: each.summary for each in plugins.listing() if each.role == "observer"}
    assert listed == {"Refusing": "schedhook_before_migrate", "Watcher": ", ".join(ARGUMENTS)}


def test_an_unknown_plug_in_hook_raises() -> None:
    with pytest.raises(AttributeError):
        given().notify("schedhook_no_such_hook")


def test_the_traceback_of_an_observer_is_logged_at_debug_level(
    install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    log.configure("json", "debug")
    install("bad_observer")
    load().notify("schedhook_event", **ARGUMENTS["schedhook_event"])
    assert any("cannot handle" in line.get("exception", "") for line in logged(capsys))
