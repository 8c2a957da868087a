"""What the doctor says about OpenPBS, on made-up hosts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from schedhook.plugins.findings import Finding, Severity
from schedhook.testing.hosts import write_file
from schedhook_plugins.schedulers.pbs import doctor
from schedhook_plugins.schedulers.pbs.doctor import examine

HOOKS = "var/spool/pbs/mom_priv/hooks"


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A host where all is well."""
    write_file(tmp_path, "etc/pbs.conf", "PBS_EXEC=/opt/pbs\nPBS_HOME=/var/spool/pbs\n")
    write_file(tmp_path, "var/spool/pbs/pbs_version", "23.06.06\n")
    write_file(tmp_path, f"{HOOKS}/schedhook.HK", "enabled=true\norder=500\n")
    write_file(tmp_path, f"{HOOKS}/pbs_cgroups.HK", "enabled=true\norder=100\n")
    write_file(tmp_path, f"{HOOKS}/pbs_cgroups.CF", json.dumps({"vnode_per_numa_node": True}))
    write_file(tmp_path, f"{HOOKS}/schedhook.CF", json.dumps({"program": "/opt/s/schedhook"}))
    write_file(tmp_path, "opt/s/schedhook", "#!/bin/sh\n")
    (tmp_path / "opt/s/schedhook").chmod(0o755)
    return tmp_path


def worst(findings: list[Finding], subject: str) -> Severity:
    levels = [each.level for each in findings if each.subject == subject]
    return max(levels, key=list(Severity).index)


def test_a_host_without_pbs_is_no_trouble(tmp_path: Path) -> None:
    (finding,) = examine(tmp_path)
    assert finding.level is Severity.OK


def test_a_good_host(host: Path) -> None:
    findings = list(examine(host))
    assert {each.level for each in findings} == {Severity.OK}
    assert "23.06.06" in findings[0].what


@pytest.mark.parametrize(
    ("name", "text", "subject", "level"),
    [
        ("schedhook.HK", None, "pbs hook", Severity.NOTE),
        ("schedhook.HK", "enabled=false\norder=500\n", "pbs hook", Severity.PROBLEM),
        ("schedhook.HK", "order=50\n", "pbs hook", Severity.PROBLEM),
        ("schedhook.HK", "enabled=true\n", "pbs hook", Severity.PROBLEM),
        ("schedhook.CF", None, "pbs hook", Severity.PROBLEM),
        ("schedhook.CF", "{", "pbs hook", Severity.PROBLEM),
        ("schedhook.CF", '{"program": []}', "pbs hook", Severity.PROBLEM),
        ("schedhook.CF", '{"program": ["/opt/gone"]}', "pbs hook", Severity.PROBLEM),
        ("pbs_cgroups.HK", None, "pbs cgroups", Severity.NOTE),
        ("pbs_cgroups.HK", "enabled=false\n", "pbs cgroups", Severity.NOTE),
        ("pbs_cgroups.CF", "[]", "pbs cgroups", Severity.NOTE),
        ("pbs_cgroups.CF", "{}", "pbs cgroups", Severity.NOTE),
    ],
)
def test_what_is_wrong_is_found(
    host: Path, name: str, text: str | None, subject: str, level: Severity
) -> None:
    path = host / HOOKS / name
    if text is None:
        path.unlink()
    else:
        path.write_text(text)
    findings = list(examine(host))
    assert worst(findings, subject) is level
    assert all(each.remedy for each in findings if each.level is not Severity.OK)


@pytest.mark.parametrize(
    ("seconds", "alarm", "level"),
    [
        ({"default": 1.8}, None, Severity.OK),
        ({"preresume": 30}, None, Severity.PROBLEM),
        ({"preresume": 30}, 45, Severity.OK),
        ({"default": 1.8}, 2, Severity.PROBLEM),
        ({}, 2, Severity.PROBLEM),
        ({"preresume": 1}, 2, Severity.PROBLEM),
        ("soon", 2, Severity.OK),
    ],
)
def test_an_alarm_that_cuts_the_limits_short(
    host: Path, seconds: object, alarm: int | None, level: Severity
) -> None:
    text = json.dumps({"program": "/opt/s/schedhook", "seconds": seconds})
    (host / HOOKS / "schedhook.CF").write_text(text)
    if alarm is not None:
        (host / HOOKS / "schedhook.HK").write_text(f"order=500\nalarm={alarm}\n")
    findings = list(examine(host))
    assert worst(findings, "pbs hook") is level
    told = any("cuts short the limit" in each.what for each in findings)
    assert told == (level is Severity.PROBLEM)


def test_a_program_on_a_host_of_its_own_is_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "schedhook"
    write_file(tmp_path, "schedhook.CF", json.dumps({"program": [str(program)]}))
    write_file(tmp_path, "schedhook", '#!/bin/sh\n[ "$1" = --version ]\n')
    program.chmod(0o755)
    monkeypatch.setattr("schedhook_plugins.schedulers.programs.explain_untrusted", lambda _: None)
    (finding,) = doctor._program(tmp_path / "schedhook.CF", Path("/"))
    assert finding.level is Severity.OK
    for text, why in (
        ("#!/bin/sh\necho no module >&2; exit 1\n", "ends with status 1: no module"),
        ("#!/no/such/python\n", "does not start"),
    ):
        program.write_text(text)
        (finding,) = doctor._program(tmp_path / "schedhook.CF", Path("/"))
        assert finding.level is Severity.PROBLEM
        assert why in finding.what


def test_hooks_that_cannot_be_read(host: Path) -> None:
    (host / HOOKS).rename(host / "elsewhere")
    assert worst(list(examine(host)), "pbs hook") is Severity.NOTE
