"""`schedhook doctor`: the findings as JSON and as text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from schedhook.cli.main import main


def test_a_broken_configuration_is_a_finding(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "config.toml"
    file.write_text("[relocation]\nspeed = 3\n")
    status = main(["doctor", "--json", "--config", str(file)], standalone_mode=False)
    findings = json.loads(capsys.readouterr().out)["findings"]
    assert status == 1
    assert (findings[0]["level"], "speed" in findings[0]["remedy"]) == ("problem", True)
    assert any(each["subject"] == "move_pages" for each in findings)


def test_people_see_every_remedy(capsys: pytest.CaptureFixture[str]) -> None:
    main(["doctor"], standalone_mode=False)
    shown = "".join(capsys.readouterr().out.split())
    main(["doctor", "--json"], standalone_mode=False)
    for each in json.loads(capsys.readouterr().out)["findings"]:
        assert "".join(each["remedy"].split()) in shown


def test_names_from_files_do_not_reach_the_terminal_as_they_are(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "etc/slurm").mkdir(parents=True)
    (tmp_path / "etc/slurm/slurm.conf").write_text("TaskPlugin=\x1b]0;owned\x07[/red]\n")
    main(["doctor", "--root", str(tmp_path)], standalone_mode=False)
    shown = capsys.readouterr().out
    assert "TaskPlugin=\\x1b]0;owned\\x07[/red]" in shown.replace("\n", "")
    assert "\x1b" not in shown


def test_the_command_prints_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    main(["doctor", "--json"], standalone_mode=False)
    findings = json.loads(capsys.readouterr().out)["findings"]
    assert {"subject", "level", "what", "remedy"} == set(findings[0])
