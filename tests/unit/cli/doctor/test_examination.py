"""All checks together: on this host, on a host without files, and a check that fails."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from schedhook.cli.doctor import examination
from schedhook.cli.doctor.examination import examine
from schedhook.cli.doctor.setup import Setup
from schedhook.plugins.findings import Finding, Severity, ok
from schedhook.plugins.manager import Plugins
from schedhook.values.config import Config
from tests.unit.doctorkit import found


def test_this_host_is_examined(plugins: Plugins) -> None:
    findings = examine(Config(), plugins)
    assert found(findings, "move_pages").level is Severity.OK
    assert "Linux" in found(findings, "versions").what
    assert all(each.remedy for each in findings if each.level is not Severity.OK)


def test_a_check_that_fails_is_a_finding_and_the_others_run(
    plugins: Plugins, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check_disks(setup: Setup) -> Iterator[Finding]:
        yield ok("disks", f"below {setup.root}")
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(examination, "CHECKS", (check_disks, *examination.CHECKS))
    _, first, *others = examination.examine(Config(), plugins)
    assert (first.subject, first.level) == ("disks", Severity.PROBLEM)
    assert "Input/output error" in first.what
    assert "run doctor again" in first.remedy
    assert found(others, "move_pages").level is Severity.OK


def test_a_host_without_files_is_a_finding_not_a_crash(plugins: Plugins, tmp_path: Path) -> None:
    findings = examine(Config(), plugins, tmp_path)
    assert any(each.level is Severity.PROBLEM for each in findings)
