"""Checks of plug-ins, of the configured names, and those that plug-ins make."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from schedhook import hookimpl
from schedhook.cli.doctor.examination import examine
from schedhook.plugins.findings import Severity, ok
from schedhook.plugins.manager import Plugins
from schedhook.plugins.sources import PluginSource
from schedhook.values.config import Config, PluginsSection, RelocationSection, WatchSection
from tests.unit.doctorkit import found


def test_a_configured_name_that_no_plug_in_provides(plugins: Plugins) -> None:
    config = replace(Config(), relocation=RelocationSection(strategy="telepathy"))
    problems = [each for each in examine(config, plugins) if each.level is Severity.PROBLEM]
    assert any("telepathy" in each.what for each in problems)


def test_a_scheduler_to_watch_that_no_plug_in_provides(plugins: Plugins) -> None:
    """The agent refuses to start with it."""
    config = replace(Config(), watch=WatchSection(schedulers=("nosuch",)))
    problems = [each for each in examine(config, plugins) if each.level is Severity.PROBLEM]
    assert any("nosuch" in each.what for each in problems)


def test_a_disabled_name_that_no_plug_in_has(plugins: Plugins) -> None:
    config = replace(Config(), plugins=PluginsSection(disabled=("nosuch",)))
    (finding,) = [each for each in examine(config, plugins) if "nosuch" in each.what]
    assert finding.level is Severity.NOTE
    assert "remove it" in finding.remedy


class Answers:
    def __init__(self, answer: Callable[[], object]) -> None:
        self._answer = answer

    @hookimpl
    def schedhook_doctor(self) -> object:
        return self._answer()


def test_a_plug_in_that_fails_or_answers_nonsense_is_a_finding(tmp_path: Path) -> None:
    plugins = Plugins()
    good = ok("theirs", "fine")
    for name, answer in (
        ("good", lambda: [good]),
        ("fails", lambda: 1 / 0),
        ("nonsense", lambda: ["all well"]),
        ("silent", lambda: None),
    ):
        plugins.register(PluginSource(name=name, package="t"), Answers(answer))
    findings = examine(Config(), plugins, tmp_path)
    assert good in findings
    assert "division" in found(findings, "plug-in fails (t)").what
    assert "all well" in found(findings, "plug-in nonsense (t)").what
    assert not [each for each in findings if "silent" in each.subject]
