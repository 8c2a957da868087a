"""Calls of plug-in hooks, one plug-in at a time."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from schedhook import hookimpl
from schedhook.plugins.loading import TRACE_VARIABLE, load_plugins
from schedhook.values.config import Config, PluginsSection
from tests.unit.pluginkit import (
    ARGUMENTS,
    Watcher,
    given,
    logged,
    provides,
)


def test_an_unhashable_plug_in_affects_no_other() -> None:
    @dataclass
    class Odd:
        mood: str = "odd"

        @hookimpl
        def schedhook_event(self) -> None: ...

    watcher = Watcher()
    plugins = given(Odd(), watcher)
    plugins.notify("schedhook_event", **ARGUMENTS["schedhook_event"])
    assert len(watcher.seen) == 1
    assert "unhashable" in plugins.problems[0].what


@pytest.mark.parametrize(("value", "expected"), [("1", True), ("0", False), ("", False)])
def test_tracing_logs_every_call(
    capsys: pytest.CaptureFixture[str], value: str, expected: bool
) -> None:
    plugins = load_plugins(
        Config(plugins=PluginsSection(third_party=False)),
        extra=[Watcher(), provides("alpha")],
        environ={TRACE_VARIABLE: value},
    )
    plugins.notify("schedhook_event", **ARGUMENTS["schedhook_event"])
    calls = [
        (line["hook"], line["plugin"])
        for line in logged(capsys)
        if line["event"] == "plug-in hook called"
    ]
    assert (("schedhook_event", "Watcher (given)") in calls) is expected
    assert (("schedhook_mappers", "gives_alpha (given)") in calls) is expected
