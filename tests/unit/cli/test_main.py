"""The program: its commands, their help, and one-line errors."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from schedhook.cli.main import COMMANDS
from schedhook.testing.hosts import write_cgroup_mounts, write_file
from tests.unit.clikit import Run


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["show", "--watch", "nan"], "not a finite number"),
        (["show", "--job", "../7"], "'../7' is not a job's id"),
        (["show", "--job", ""], "'--job': it is empty"),
        (["show", "--job", "x" * 100_000], f"{'x' * 40}' is not a job's id"),
        (["history", "--limit", "99999999999999999999"], "--limit"),
        (["metrics", "--textfile", ""], "'--textfile': it is empty"),
        (["metrics", "--textfile", "x.txt"], "files named *.prom"),
        (["agent", "--socket", ""], "'--socket': it is empty"),
        (["agent", "--socket", "/"], "name a file"),
        (["profile", "log", "--pid", "1", "--min-share", "nan"], "not a finite number"),
        (["doctor", "--root", ""], "'--root': it is empty"),
    ],
)
def test_wrong_usage_of_any_command_is_one_line(run: Run, arguments: list[str], words: str) -> None:
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert err.startswith("schedhook: ")
    assert err.count("\n") == 1
    assert words in err


def test_without_a_command_it_prints_help(run: Run) -> None:
    assert run() == run("--help")


def test_the_history_of_a_fresh_host_is_empty(run: Run) -> None:
    status, out, err = run("history")
    assert (status, out.count("job"), err) == (0, 1, "")
    assert run("history", "--json") == (0, "[]\n", "")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(run: Run, command: str) -> None:
    status, out, err = run(command, "--help")
    assert (status, err) == (0, "")
    assert "--config" in out


def test_the_list_of_commands_has_a_summary_of_each(run: Run) -> None:
    status, out, _ = run("--help")
    assert status == 0
    for name, summary in COMMANDS.items():
        assert f"{name} " in out
        assert summary in out


@pytest.mark.parametrize("command", ["--help", *COMMANDS])
def test_a_command_imports_no_other(command: str) -> None:
    code = (
        "import json, sys; from schedhook.cli.main import main;"
        f"main([{command!r}, '--help'], standalone_mode=False);"
        "print(json.dumps(list(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True
    )
    start = "schedhook.cli.commands."
    imported = {name.removeprefix(start) for name in json.loads(done.stderr) if start in name}
    assert imported == {command} - {"--help"}


def test_names_in_errors_cannot_control_the_terminal(run: Run, host: Path) -> None:
    """A user who may create cgroups may put a terminal's control sequences in their names."""
    write_cgroup_mounts(host)
    write_file(host, "sys/fs/cgroup/user/cgroup.procs", "")
    write_file(host, "sys/fs/cgroup/user/\x1b]0;mine\x07\r/cgroup.procs", "none\n")
    status, _, err = run("show", "--root", host, "--cgroup", "/user")
    assert (status, err.count("\n")) == (1, 1)
    assert "cannot parse" in err
    assert err.removesuffix("\n").isprintable()
