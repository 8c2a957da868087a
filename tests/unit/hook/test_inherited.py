"""Hooks and commands inherit streams, signals and variables from the process that starts them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from schedhook.hook import delivery
from schedhook.journal.journal import Journal

HOOK = Path(delivery.__file__).with_name("run.py")
IGNORED = "for each in (SIGCHLD, SIGPIPE, SIGALRM, SIGHUP): signal(each, SIG_IGN)"
BLOCKED = "pthread_sigmask(SIG_BLOCK, valid_signals())"


def hook(directory: Path, given: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run run.py after the lines of Python in `given`."""
    config = directory / "config.toml"
    config.write_text(f'[journal]\npath = "{directory}/journal/journal.db"\n')
    command = [sys.executable, "-I", "-S", HOOK, *arguments, "--strict"]
    command += ["--socket", directory / "agent.sock", "--spool", directory / "spool"]
    program = f"import os, sys\nfrom signal import *\n{given}\nos.execv(sys.argv[1], sys.argv[1:])"
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, command)],
        env={"SLURM_JOB_ID": "7", "SCHEDHOOK_CONFIG": str(config)},
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize(
    "given",
    [
        *(f"for each in {closed}: os.close(each)" for closed in ((0,), (1,), (2,), (0, 1, 2))),
        IGNORED,
        BLOCKED,
        "os.umask(0)",
        "os.environ |= dict.fromkeys(('LANG', 'LC_ALL', 'PYTHONHOME', 'PYTHONUTF8'), 'xx')",
    ],
)
def test_an_event_is_handled_without_an_agent(tmp_path: Path, given: str) -> None:
    done = hook(tmp_path, given, "slurm", "prolog", "--wait")
    assert (done.returncode, done.stderr) == (0, "")
    with Journal.open(tmp_path / "journal/journal.db") as journal:
        assert [(run.scheduler, run.job) for run in journal.runs.list_open()] == [("slurm", "7")]


@pytest.mark.parametrize("given", [IGNORED, BLOCKED])
def test_a_hook_ends_in_time_with_signals_ignored_or_blocked(tmp_path: Path, given: str) -> None:
    endless = "reader, writer = os.pipe(); os.dup2(reader, 0); os.set_inheritable(writer, True)"
    done = hook(tmp_path, f"{given}\n{endless}", "pbs", "begin", "--timeout", "0.2")
    assert done.returncode == 1
    assert "not finished after 0.2 s" in done.stderr
