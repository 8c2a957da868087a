"""The examination: what it finds on a made-up host and on this one, and that it never breaks."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from schedhook.cli.main import main
from schedhook.config import Config, RelocationSection
from schedhook.doctor import Finding, Level, examine
from schedhook.plugins import Plugins, load_plugins


@pytest.fixture
def plugins() -> Plugins:
    return load_plugins(Config(), environ={"SCHEDHOOK_DISABLE_PLUGINS": "all"})


def found(findings: list[Finding], subject: str) -> Finding:
    (finding,) = [each for each in findings if each.subject == subject]
    return finding


def test_this_host_is_examined(plugins: Plugins) -> None:
    findings = examine(Config(), plugins)
    assert found(findings, "move_pages").level is Level.OK
    assert "Linux" in found(findings, "versions").what
    assert all(each.remedy for each in findings if each.level is not Level.OK)


def test_balancing_is_said(plugins: Plugins, tmp_path: Path) -> None:
    setting = tmp_path / "proc/sys/kernel/numa_balancing"
    setting.parent.mkdir(parents=True)
    for text, level in (("1\n", Level.NOTE), ("0\n", Level.OK)):
        setting.write_text(text)
        assert found(examine(Config(), plugins, tmp_path), "numa_balancing").level is level


def test_a_host_without_files_is_a_finding_not_a_crash(plugins: Plugins, tmp_path: Path) -> None:
    findings = examine(Config(), plugins, tmp_path)
    assert any(each.level is Level.PROBLEM for each in findings)


def test_a_choice_that_does_not_exist_is_found(plugins: Plugins) -> None:
    config = replace(Config(), relocation=RelocationSection(strategy="telepathy"))
    problems = [each for each in examine(config, plugins) if each.level is Level.PROBLEM]
    assert any("telepathy" in each.what for each in problems)


def test_the_command_prints_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    main(["doctor", "--json"], standalone_mode=False)
    findings = json.loads(capsys.readouterr().out)["findings"]
    assert {"subject", "level", "what", "remedy"} == set(findings[0])
