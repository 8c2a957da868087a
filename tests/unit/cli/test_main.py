"""The command line: exit statuses, one-line errors, and JSON, on made-up hosts."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from schedhook.cli.main import run as run_command
from schedhook.testing.hosts import (
    FakeArea,
    FakeNode,
    write_cgroup_mounts,
    write_file,
    write_host,
    write_process,
)

MIB = 1 << 20
AREA = FakeArea(start=0x7F0000000000, size=12 * MIB, pages={0: 2048, 1: 1024})
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["schedhook", *(str(each) for each in arguments)])
        with pytest.raises(SystemExit) as leave:
            run_command()
        printed = capsys.readouterr()
        status = leave.value.code
        assert isinstance(status, int)
        return status, printed.out, printed.err

    return run


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """Four nodes of 1 GiB; process 100 has 8 MiB on node 0 and 4 on node 1."""
    write_host(tmp_path, nodes=[FakeNode(number=n, cpus=str(n)) for n in range(4)])
    write_process(tmp_path, 100, areas=[AREA], nodes="0-3")
    return tmp_path


def on(host: Path) -> list[object]:
    return ["--root", host, "--backend", "simulated", "--pid", 100]


def test_a_plan_as_json(run: Run, host: Path) -> None:
    status, out, err = run("plan", *on(host), "--from", "0-1", "--to", "2,3", "--json")
    plan = json.loads(out)
    assert (status, err) == (0, "")
    assert plan["outcome"] == "planned"
    assert plan["node_map"] == {"0": 2, "1": 3}
    assert plan["bytes_planned"] == 12 * MIB
    assert plan["plan"]["moves"] == [
        {"from": 0, "to": 2, "bytes": 8 * MIB},
        {"from": 1, "to": 3, "bytes": 4 * MIB},
    ]


def test_a_plan_for_people(run: Run, host: Path) -> None:
    status, out, _ = run("plan", *on(host), "--from", 0, "--to", 2)
    assert status == 0
    assert "planned" in out
    assert "8.0 MiB" in out


def test_a_relocation_on_a_simulated_host(run: Run, host: Path) -> None:
    status, out, _ = run("relocate", *on(host), "--map", "0:1,1:0", "--json")
    report = json.loads(out)
    assert (status, report["outcome"], report["mapper"]) == (0, "complete", "given")
    assert report["processes"][0]["residency_after"] == {"0": 4 * MIB, "1": 8 * MIB}


def test_a_refusal_is_said_on_both_channels(run: Run, host: Path) -> None:
    status, out, err = run(
        "relocate", *on(host), "--from", 0, "--to", 2, "--reserve", 510, "--json"
    )
    assert status == 4
    assert json.loads(out)["outcome"] == "refused"
    assert "no room" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["--from", "zero", "--to", "2"], 2, "zero"),
        (["--from", "3-1", "--to", "2"], 2, "backwards"),
        (["--from", "", "--to", "2"], 2, "empty"),
        (["--from", "0"], 2, "--to"),
        (["--from", "0", "--to", "7"], 2, "node 7 is not online"),
        (["--map", "0:1:2"], 2, "0:1:2"),
        (["--map", "0:1", "--from", "0"], 2, "--map"),
        (["--from", "0", "--to", "2", "--strategy", "telepathy"], 2, "move-pages"),
        (["--from", "0", "--to", "2", "--mapper", "treasure"], 2, "nearest"),
        (["--from", "0", "--to", "2", "--kinds", "swap"], 2, "anon"),
        (["--from", "0", "--to", "2", "--job", "7"], 2, "one of --pid"),
        (["--from", "0", "--to", "2", "--pid", "101"], 1, "101"),
        (["--from", "0", "--to", "2", "--config", "/nonexistent.toml"], 2, "/nonexistent.toml"),
        (["--from", "0", "--to", "2", "--threads", "0"], 2, "--threads"),
        (["--from", "0", "--to", "2", "--threads", "9999999999"], 2, "1024"),
        (["--from", "0", "--to", "2", "--bandwidth", "nan"], 2, "not a finite number"),
        (["--from", "0", "--to", "2", "--bandwidth", "inf"], 2, "not a finite number"),
        (["--from", "0", "--to", "2", "--strategy", ""], 2, "'--strategy': it is empty"),
        (["--from", "0", "--to", "2", "--mapper", " "], 2, "'--mapper': it is empty"),
        (["--from", "0", "--to", "2", "--backend", ""], 2, "'--backend': it is empty"),
        (["--from", "0", "--to", "2", "--scheduler", ""], 2, "'--scheduler': it is empty"),
        (["--from", "0", "--to", "2", "--config", ""], 2, "'--config': it is empty"),
        (["--from", "0", "--to", "2", "--svg", ""], 2, "'--svg': it is empty"),
        (["--cpus", "2,9998-9999"], 2, "9998-9999 is online on this host; the online processors"),
    ],
)
def test_errors_are_one_line_and_have_their_status(
    run: Run, host: Path, arguments: list[str], status: int, words: str
) -> None:
    got, out, err = run("relocate", *on(host), *arguments)
    assert (got, out) == (status, "")
    assert err.startswith("schedhook: ")
    assert err.count("\n") == 1
    assert words in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "Missing command"),
        (["show", "--watch", "nan"], "not a finite number"),
        (["show", "--job", "../7"], "'../7' is not a job's id"),
        (["show", "--job", ""], "'--job': it is empty"),
        (["show", "--job", "x" * 100_000], f"{'x' * 40}' is not a job's id"),
        (["history", "--limit", "99999999999999999999"], "--limit"),
        (["metrics", "--textfile", ""], "'--textfile': it is empty"),
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


def test_nobody_to_move_is_wrong_usage(run: Run) -> None:
    status, _, err = run("relocate", "--from", 0, "--to", 1)
    assert status == 2
    assert "--pid" in err


def test_a_host_with_one_node_has_nothing_to_do(run: Run, tmp_path: Path) -> None:
    write_host(tmp_path, nodes=[FakeNode(number=0)])
    write_process(tmp_path, 100, areas=[AREA], nodes="0-3")
    status, out, _ = run("relocate", *on(tmp_path), "--from", 0, "--to", 1)
    assert status == 0
    assert "nothing-to-do" in out
    assert "one NUMA node" in out


def test_a_host_with_one_node_says_what_is_not_there(run: Run, tmp_path: Path) -> None:
    write_host(tmp_path, nodes=[FakeNode(number=0)])
    relocate = ("relocate", "--root", tmp_path, "--backend", "simulated", "--from", 0, "--to", 1)
    for who, answer in {("--pid", 999): 1, ("--cgroup", "/absent"): 2, ("--job", 7): 2}.items():
        status, out, err = run(*relocate, *who)
        assert (status, out) == (answer, ""), who
        assert str(who[1]) in err


def test_show_counts_by_process_and_kind(run: Run, host: Path) -> None:
    status, out, _ = run("show", "--root", host, "--pid", 100, "--json")
    shown = json.loads(out)
    assert status == 0
    assert shown["processes"][0]["residency"] == {"0": 8 * MIB, "1": 4 * MIB}
    assert shown["processes"][0]["kinds"]["anon"] == {"0": 8 * MIB, "1": 4 * MIB}
    assert run("show", "--root", host, "--pid", 100)[0] == 0


def test_commands_that_are_not_there(run: Run) -> None:
    status, _, err = run("teleport")
    assert status == 2
    assert "teleport" in err


@pytest.mark.parametrize(
    "command", ["relocate", "plan", "show", "plugins", "doctor", "history", "profile"]
)
def test_every_command_has_help(run: Run, command: str) -> None:
    status, out, _ = run(command, "--help")
    assert status == 0
    assert "--json" in out


def test_relocating_as_json_imports_nothing_for_people() -> None:
    """Scheduler hooks and scripts read JSON; rich, tenacity and structlog cost them start-up."""
    code = (
        "import sys; from schedhook.cli.main import main;"
        "main(['relocate', '--pid', str(__import__('os').getpid()), '--from', '0', '--to', '0',"
        " '--json'], standalone_mode=False);"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout)["outcome"] == "nothing-to-do"
    assert not {"rich", "tenacity", "structlog", "sqlite3", "asyncio"} & set(done.stderr.split())


def test_a_terminal_is_told_nothing_by_names_in_errors(run: Run, host: Path) -> None:
    """Whoever may make cgroups may call one what a terminal obeys."""
    write_cgroup_mounts(host)
    write_file(host, "sys/fs/cgroup/user/cgroup.procs", "")
    write_file(host, "sys/fs/cgroup/user/\x1b]0;mine\x07\r/cgroup.procs", "none\n")
    status, _, err = run("show", "--root", host, "--cgroup", "/user")
    assert (status, err.count("\n")) == (1, 1)
    assert "cannot parse" in err
    assert err.removesuffix("\n").isprintable()
