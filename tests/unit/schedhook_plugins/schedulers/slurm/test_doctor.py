"""The doctor's report on Slurm, for configurations of every kind on made-up hosts."""

from __future__ import annotations

from pathlib import Path

import pytest

from schedhook.plugins.findings import Finding, Severity
from schedhook.testing.hosts import (
    write_cgroup,
    write_cgroup_mounts,
    write_file,
    write_process,
)
from schedhook_plugins.schedulers.slurm import doctor, queries
from schedhook_plugins.schedulers.slurm.doctor import examine

GOOD = """
# comment ProctrackType=proctrack/linuxproc
proctracktype = proctrack/cgroup   # the case of a name does not matter
TaskPlugin=task/cgroup,task/affinity
Prolog=/etc/slurm/schedhook/prolog
Epilog=/etc/slurm/epilog.d/*
Include more.conf
"""


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A host on which nothing is wrong."""
    write_file(tmp_path, "etc/slurm/slurm.conf", GOOD)
    write_file(tmp_path, "etc/slurm/more.conf", "TaskProlog=/etc/slurm/\\\nsite_prolog\n")
    write_file(tmp_path, "etc/slurm/cgroup.conf", "ConstrainCores=yes\n")
    for name in ("schedhook/prolog", "epilog.d/10-site", "epilog.d/20-schedhook", "site_prolog"):
        write_file(tmp_path, f"etc/slurm/{name}", "#!/bin/sh\n# tells schedhook\n")
        (tmp_path / f"etc/slurm/{name}").chmod(0o755)
    write_file(tmp_path, "etc/slurm/epilog.d/10-site", "#!/bin/sh\n")
    return tmp_path


def worst(findings: list[Finding], subject: str) -> Severity:
    levels = [each.level for each in findings if each.subject == subject]
    return max(levels, key=list(Severity).index)


def change(host: Path, old: str, new: str, name: str = "slurm.conf") -> list[Finding]:
    path = host / "etc/slurm" / name
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    return list(examine(host))


def test_a_host_without_slurm_has_no_problem(tmp_path: Path) -> None:
    (finding,) = examine(tmp_path)
    assert (finding.level, finding.what) == (Severity.OK, "no slurm.conf on this host")


def test_a_host_on_which_nothing_is_wrong(host: Path) -> None:
    findings = list(examine(host))
    assert {each.level for each in findings} == {Severity.OK}
    (epilog,) = [each for each in findings if each.subject == "slurm Epilog"]
    assert epilog.what.endswith("epilog.d/20-schedhook")


@pytest.mark.parametrize(
    ("old", "new", "subject", "level"),
    [
        ("proctrack/cgroup", "proctrack/linuxproc", "slurm", Severity.PROBLEM),
        ("proctracktype", "# no", "slurm", Severity.OK),
        ("task/cgroup,", "", "slurm", Severity.NOTE),
        ("Prolog=/etc/slurm/schedhook/prolog", "", "slurm Prolog", Severity.NOTE),
        ("schedhook/prolog", "schedhook/gone", "slurm Prolog", Severity.PROBLEM),
        ("epilog.d/*", "epilog.d/1*", "slurm Epilog", Severity.NOTE),
        ("Include more.conf", "", "slurm TaskProlog", Severity.NOTE),
    ],
)
def test_each_fault_is_reported_with_a_remedy(
    host: Path, old: str, new: str, subject: str, level: Severity
) -> None:
    findings = change(host, old, new)
    assert worst(findings, subject) is level
    remedies = [each.remedy for each in findings if each.level is not Severity.OK]
    assert all(remedies)
    assert level is Severity.PROBLEM or all("slurm.conf" in remedy for remedy in remedies)


def test_jobs_without_cpusets_are_noted(host: Path) -> None:
    assert worst(change(host, "yes", "no", "cgroup.conf"), "slurm") is Severity.NOTE
    (host / "etc/slurm/cgroup.conf").unlink()
    assert worst(list(examine(host)), "slurm") is Severity.NOTE


def test_a_hook_that_is_writable_by_others_or_not_executable_is_a_problem(host: Path) -> None:
    prolog = host / "etc/slurm/schedhook/prolog"
    prolog.chmod(0o777)
    assert worst(list(examine(host)), "slurm Prolog") is Severity.PROBLEM
    prolog.chmod(0o644)
    assert worst(list(examine(host)), "slurm Prolog") is Severity.PROBLEM


@pytest.mark.parametrize("missing", ["usr/bin/timeout", "opt/s/bin/python", "opt/s/hook/run.py"])
def test_a_hook_whose_program_cannot_run_is_a_problem(host: Path, missing: str) -> None:
    write_file(
        host,
        "etc/slurm/schedhook/prolog",
        "#!/bin/sh\n# schedhook: see /opt/doc\nexec < /dev/null\n"
        "/usr/bin/timeout 3 /opt/s/bin/python -I -S /opt/s/hook/run.py slurm prolog || exit 0\n",
    )
    for name in ("bin/sh", "usr/bin/timeout", "opt/s/bin/python", "opt/s/hook/run.py"):
        write_file(host, name, "")
        (host / name).chmod(0o755)
    assert worst(list(examine(host)), "slurm Prolog") is Severity.OK
    (host / missing).unlink()
    (finding,) = [each for each in examine(host) if each.subject == "slurm Prolog"]
    assert finding.level is Severity.PROBLEM
    assert f"/{missing} does not exist" in finding.what


@pytest.mark.parametrize(
    ("plugin", "version", "level"),
    [
        ("cgroup/v2", 2, Severity.OK),
        ("cgroup/v1", 1, Severity.OK),
        ("autodetect", 1, Severity.OK),
        ("cgroup/v1", 2, Severity.PROBLEM),
        ("cgroup/v2", 1, Severity.PROBLEM),
        ("disabled", 2, Severity.PROBLEM),
    ],
)
def test_slurm_must_use_the_version_of_cgroups_that_is_mounted(
    host: Path, plugin: str, version: int, level: Severity
) -> None:
    write_cgroup_mounts(host, version=version)
    if version == 2:
        write_cgroup(host, "", files={"cgroup.controllers": "cpuset cpu memory\n"})
    else:
        write_cgroup(host, "", version=1, cpus="0-3")
    write_file(host, "etc/slurm/cgroup.conf", f"ConstrainCores=yes\nCgroupPlugin={plugin}\n")
    assert worst(list(examine(host)), "slurm") is level


def test_the_method_that_asks_slurm_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"pyslurm": (False, "not installed"), "text": (True, "scontrol, slurm 22.05")}
    monkeypatch.setattr(queries, "probe", lambda: answers)
    monkeypatch.setattr(queries, "ping", lambda: None)
    monkeypatch.setattr(queries, "find_answering", lambda usable: (usable[0], ""))
    (found,) = doctor._controller()
    assert (found.level, "text" in found.what) == (Severity.OK, True)
    monkeypatch.setattr(queries, "find_answering", lambda _: (None, "text: not a job's line"))
    (found,) = doctor._controller()
    assert (found.level, "not a job's line" in found.what) == (Severity.PROBLEM, True)
    monkeypatch.setattr(queries, "ping", lambda: "scontrol did not end within 5.0 s")
    (found,) = doctor._controller()
    assert found.level is Severity.PROBLEM
    assert "did not end" in found.what
    del answers["text"]
    (found,) = doctor._controller()
    assert found.level is Severity.NOTE


SLUID = "sEKNKTV3WPV500"


def test_a_job_whose_number_nothing_tells_is_a_problem(host: Path) -> None:
    """Slurm 26.05 names cgroups by SLUID, and only slurmstepd knows the number."""
    write_cgroup_mounts(host)
    scope = f"system.slice/slurmstepd.scope/{SLUID}"
    write_cgroup(host, f"{scope}/step_0/user/task_0", pids=[])
    (found,) = [each for each in examine(host) if each.level is Severity.PROBLEM]
    assert SLUID in found.what
    assert "CgroupJobIdPaths=yes" in found.remedy
    write_cgroup(host, f"{scope}/step_0/slurm", pids=[100])
    write_process(host, 100, name=b"slurmstepd", arguments=[b"slurmstepd: [7.0]"])
    assert {each.level for each in examine(host)} == {Severity.OK}


def test_jobs_that_share_processors_are_listed(host: Path) -> None:
    write_cgroup_mounts(host, version=2)
    for job, cpus in (("7", "0-1"), ("8", "2-3"), ("9", "1-2")):
        write_cgroup(host, f"system.slice/slurmstepd.scope/job_{job}", version=2, cpus=cpus)
    (finding,) = [each for each in examine(host) if each.subject == "slurm jobs"]
    assert finding.level is Severity.NOTE
    assert finding.what == "jobs share processors: 7 and 9 on 1, 8 and 9 on 2"
