"""job-migrate on several hosts, through ClusterShell and a program that stands in for ssh."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from ClusterShell.Task import task_self

from schedhook.values.errors import SchedhookError
from schedhook_plugins.schedulers.slurm import remote
from schedhook_plugins.schedulers.slurm.remote import run_on_hosts
from tests.unit.sshkit import use_ssh, write_ssh


@pytest.fixture(autouse=True)
def ssh(tmp_path: Path) -> Path:
    return use_ssh(tmp_path)


def test_a_host_that_fails_does_not_stop_the_others(ssh: Path) -> None:
    write_ssh(
        ssh,
        'case $host in\n  n2) echo "ssh: no route to host" >&2; exit 255 ;;\n  n3) exit 7 ;;\n'
        '  n4) echo "{"; exit 0 ;;\n'
        '  n5) echo "{}"; exit 0 ;;\n'
        '  n6) echo "{\\"hosts\\": [{\\"done\\": true}]}"; exit 0 ;;\nesac\n'
        'echo "{\\"hosts\\": [{\\"host\\": \\"x\\", \\"status\\": 0, \\"outcome\\": \\"complete\\",'
        ' \\"words\\": \\"$1\\"}]}"',
    )
    seen: list[dict[str, Any]] = []
    results = run_on_hosts(
        ["n1", "n2", "n3", "n4", "n5", "n6"], ["7", "--cpus", "2-3"], seen.append
    )
    one, two, three, four, five, six = results
    assert (one["host"], one["status"]) == ("n1", 0)
    assert one["words"].endswith("7 --cpus 2-3 --this-host --by-number --json --host n1")
    assert (two["status"], two["outcome"], two["failure"]) == (1, "failed", "ssh: no route to host")
    assert three["failure"] == "it printed no answer; exit status 7"
    assert four["failure"] == "it printed no answer; exit status 0"
    assert five["failure"] == "its answer cannot be understood"
    assert (six["status"], six["failure"]) == (1, "its answer cannot be understood")
    assert sorted(seen, key=lambda result: result["host"]) == results


def test_a_host_without_ssh_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task_self().set_info("ssh_path", "ssh")
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    (result,) = run_on_hosts(["n1"], ["7"], [].append)
    assert result["failure"] == "this host has no ssh: install OpenSSH's client"


def test_a_result_is_handed_on_before_a_slower_host_has_answered(ssh: Path, tmp_path: Path) -> None:
    first = tmp_path / "first"
    write_ssh(
        ssh,
        f"if [ $host = n1 ]; then while [ ! -e {first} ]; do sleep 0.02; done; fi\n"
        'echo "{\\"hosts\\": [{}]}"',
    )
    seen: list[str] = []

    def see(result: dict[str, Any]) -> None:
        seen.append(result["host"])
        first.touch()

    run_on_hosts(["n1", "n2"], ["7"], see)
    assert seen == ["n2", "n1"]


def test_a_host_that_does_not_answer_is_given_up(
    ssh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "_SECONDS", 0.3)
    write_ssh(ssh, "exec sleep 60")
    (result,) = run_on_hosts(["n1"], ["7"], lambda _: None)
    assert (result["outcome"], result["failure"]) == ("failed", "no answer within 0.3 s")


def test_without_clustershell_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ClusterShell.Task", None)
    with pytest.raises(SchedhookError, match="run job-migrate --this-host on each") as caught:
        run_on_hosts(["n1", "n2"], ["7"], lambda _: None)
    assert "n1,n2" in str(caught.value)
