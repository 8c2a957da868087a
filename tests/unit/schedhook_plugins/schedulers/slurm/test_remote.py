"""job-migrate on several hosts, through programs that stand in for clush and ssh."""

from __future__ import annotations

from pathlib import Path

import pytest

from schedhook.values.errors import SchedhookError
from schedhook_plugins.schedulers.slurm.remote import run_on_hosts


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only directory on PATH."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def write_program(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_a_host_that_fails_does_not_stop_the_others(programs: Path) -> None:
    write_program(
        programs / "clush",
        'case $3 in\n  n2) echo "n2: no route to host" >&2; echo "clush: 255" >&2; exit 255 ;;\n'
        '  n3) exit 7 ;;\nesac\necho "{\\"hosts\\": [{\\"host\\": \\"x\\", \\"status\\": 0,'
        ' \\"words\\": \\"$4\\"}]}"',
    )
    one, two, three = run_on_hosts(["n1", "n2", "n3"], ["7", "--cpus", "2-3"])
    assert (one["host"], one["status"]) == ("n1", 0)
    assert one["words"].endswith("7 --cpus 2-3 --this-host --by-number --json --host n1")
    assert (two["status"], two["outcome"], two["failure"]) == (1, "failed", "n2: no route to host")
    assert three["failure"] == "exit status 7"


def test_ssh_is_used_if_there_is_no_clush(programs: Path) -> None:
    write_program(programs / "ssh", 'echo "{\\"hosts\\": [{\\"to\\": \\"$3\\"}]}"')
    assert run_on_hosts(["n1"], ["7"]) == [{"host": "n1", "to": "n1"}]


@pytest.mark.usefixtures("programs")
def test_without_clush_and_ssh_the_remedy_is_named() -> None:
    with pytest.raises(SchedhookError, match="run job-migrate --this-host on each") as caught:
        run_on_hosts(["n1", "n2"], ["7"])
    assert "runs on 2 hosts" in str(caught.value)
