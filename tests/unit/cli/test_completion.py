"""Completion, as bash, fish and zsh ask for it."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from schedhook.cli.completion import complete_set
from schedhook.testing.hosts import (
    FakeNode,
    write_cgroup,
    write_cgroup_mounts,
    write_file,
    write_host,
)

SCHEDHOOK = Path(sys.executable).with_name("schedhook")
ENVIRON = {"PATH": f"{SCHEDHOOK.parent}:{os.environ['PATH']}"}


def ask(line: str, **more: str) -> tuple[list[str], str]:
    """Return what is offered at the end of a line, and standard error."""
    done = subprocess.run(
        [SCHEDHOOK],
        env={
            "_SCHEDHOOK_COMPLETE": "bash_complete",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(line.split(" ")) - 1),
            **more,
        },
        capture_output=True,
        text=True,
        check=True,
    )
    return [each.partition(",")[2] for each in done.stdout.split()], done.stderr


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("schedhook re", ["relocate", "rebalance", "report", "recover"]),
        ("schedhook relocate --strategy mi", ["migrate-process"]),
        ("schedhook plan --mapper n", ["nearest"]),
        ("schedhook relocate --backend ", ["native", "simulated"]),
        ("schedhook show --scheduler ", ["pbs", "slurm"]),
        ("schedhook relocate --shared ", ["none", "job", "all"]),
        ("schedhook relocate --leftovers r", ["report"]),
    ],
)
def test_names_are_offered(line: str, offered: list[str]) -> None:
    assert ask(line) == (offered, "")


def test_nodes_and_jobs_of_the_host_are_offered(tmp_path: Path) -> None:
    write_host(tmp_path, [FakeNode(number=n, cpus=str(n)) for n in (0, 1, 8)])
    write_cgroup_mounts(tmp_path)
    write_cgroup(tmp_path, "system.slice/slurmstepd.scope/job_4711")
    begin = f"schedhook relocate --root {tmp_path}"
    assert ask(f"{begin} --from ") == (["0", "1", "8"], "")
    assert ask(f"{begin} --to 0-") == (["0-0", "0-1", "0-8"], "")
    assert ask(f"{begin} --job 4") == (["4711"], "")
    write_cgroup(tmp_path, "system.slice/slurmstepd.scope/job_38/step_batch/user/task_0", pids=[9])
    text = "SLURM_JOB_ID=38\0SLURM_ARRAY_JOB_ID=36\0SLURM_ARRAY_TASK_ID=2\0"
    write_file(tmp_path, "proc/9/environ", text)
    assert ask(f"{begin} --job 3") == (["36_2"], "")


def test_a_list_is_completed_at_its_end() -> None:
    assert [each.value for each in complete_set([0, 1, 12], "0-3,1")] == ["0-3,1", "0-3,12"]


def test_a_broken_configuration_prints_nothing(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text("nonsense")
    assert ask("schedhook relocate --strategy ", SCHEDHOOK_CONFIG=str(file)) == ([], "")


def test_a_broken_plug_in_prints_nothing(tmp_path: Path) -> None:
    metadata = tmp_path / "broken-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text("[schedhook]\nbroken = no_such_module\n")
    line = "schedhook relocate --strategy mi"
    assert ask(line, PYTHONPATH=str(tmp_path)) == (["migrate-process"], "")


def test_bash() -> None:
    script = """
        source <(_SCHEDHOOK_COMPLETE=bash_source schedhook)
        COMP_WORDS=(schedhook relocate --strategy mo); COMP_CWORD=3
        _schedhook_completion schedhook
        echo "${COMPREPLY[@]}"
        complete -p schedhook
    """
    done = subprocess.run(
        ["bash", "-ec", script], env=ENVIRON, capture_output=True, text=True, check=True
    )
    offered, registered = done.stdout.splitlines()
    assert offered == "move-pages"
    assert "-F _schedhook_completion schedhook" in registered


COMPLETED = "schedhook relocate --strategy migrate-process"


def test_fish() -> None:
    script = """
        _SCHEDHOOK_COMPLETE=fish_source schedhook | source
        for line in "schedhook relo" "schedhook relocate --strat" "schedhook plan --strategy mi"
            complete --do-complete $line
        end
    """
    done = subprocess.run(
        ["fish", "--no-config", "-c", script],
        env=ENVIRON,
        capture_output=True,
        text=True,
        check=True,
    )
    offered = [line.partition("\t")[0] for line in done.stdout.splitlines()]
    assert offered == ["relocate", "--strategy", "migrate-process"]


def test_zsh() -> None:
    """Type on a terminal, since zsh completes nothing else."""
    ready = (
        "autoload -U compinit; compinit -u -D; source <(_SCHEDHOOK_COMPLETE=zsh_source schedhook)"
    )
    process, terminal = pty.fork()
    if process == 0:
        os.execvpe("zsh", ["zsh", "-f", "-i"], ENVIRON | {"TERM": "dumb", "PS1": ""})
    try:
        type_and_expect(
            terminal, f"{ready}; print al-ready\n".replace("al-ready", "al''-ready"), "\nal-ready"
        )
        # What has been completed is printed by the shell itself.
        for typed in ("schedhook relo\t", "--strat\t", "mi\t"):
            os.write(terminal, typed.encode())
            time.sleep(0.1)
        type_and_expect(terminal, "\x01print -r -- \n", f"\n{COMPLETED}")
    finally:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        os.close(terminal)


def type_and_expect(terminal: int, typed: str, expected: str) -> None:
    """Type `typed`, and wait until the terminal has shown `expected`."""
    os.write(terminal, typed.encode())
    text, end = "", time.monotonic() + 60
    while expected not in text.replace("\r", ""):
        ready, _, _ = select.select([terminal], [], [], max(0, end - time.monotonic()))
        assert ready, text
        text += os.read(terminal, 65536).decode(errors="replace")
