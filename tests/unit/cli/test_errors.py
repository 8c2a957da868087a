"""How a command ends: exit status, and one line on standard error."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest

from schedhook.cli.errors import run_command
from schedhook.values.errors import RefusedError, UsageError
from tests.unit.clikit import SCHEDHOOK


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (UsageError("no such node"), 2, "it: no such node"),
        (RefusedError("no room"), 4, "it: no room"),
        (click.ClickException("no file"), 2, "it: no file"),
        (click.Abort(), 1, "it: interrupted; memory that had moved stays on its new nodes"),
        (KeyboardInterrupt(), 1, "it: interrupted; memory that had moved stays on its new nodes"),
        (UsageError("no cgroup \x1b[2J\n"), 2, "it: no cgroup \\x1b[2J\\n"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_is_one_line_and_an_exit_status(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    status: int,
    line: str,
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(sys, "argv", ["it"])  # else pytest's own words are the command's
    with pytest.raises(SystemExit) as leave:
        run_command(click.command()(fail), "it")
    assert leave.value.code == status
    assert capsys.readouterr().err.strip("\n") == line


def test_a_reader_that_has_gone_is_no_traceback(four: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as pipe:
        command = [*SCHEDHOOK, "show", "--root", four, "--json"]
        done = subprocess.run(command, stdout=pipe, stderr=subprocess.PIPE, check=False, text=True)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.parametrize("options", [(), ("--json",)])
@pytest.mark.parametrize("closed", [(1,), (2,), (0, 1, 2)])
def test_streams_that_the_caller_closed(
    four: Path, options: tuple[str, ...], closed: tuple[int, ...]
) -> None:
    done = subprocess.run(
        [*SCHEDHOOK, "show", "--root", four, *options],
        preexec_fn=lambda: [os.close(number) for number in closed],
        capture_output=True,
        check=False,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert bool(done.stdout) == (1 not in closed)


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_full_disk_is_one_line(four: Path, options: tuple[str, ...]) -> None:
    with Path("/dev/full").open("wb") as full:
        command = [*SCHEDHOOK, "show", "--root", four, *options]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False, text=True)
    expected = "schedhook: the output cannot be written: No space left on device\n"
    assert (done.returncode, done.stderr) == (1, expected)


def test_the_exit_status_of_a_program_is_seen_though_sigchld_was_ignored() -> None:
    """Some daemons ignore SIGCHLD, as do their children: a failed scontrol would seem done."""
    program = """
import subprocess
import click
from schedhook.cli.errors import run_command
command = click.command()(lambda: subprocess.run(["false"], check=False).returncode + 6)
run_command(command, "it")
"""
    done = subprocess.run(
        [sys.executable, "-P", "-c", program],
        preexec_fn=lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN),
        check=False,
    )
    assert done.returncode == 7
