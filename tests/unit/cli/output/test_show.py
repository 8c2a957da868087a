"""The screens of `schedhook show`, on terminals of any width and hosts of any shape."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from rich.cells import cell_len

from schedhook.testing.hosts import FakeArea, write_process
from tests.unit import clikit
from tests.unit.clikit import ESCAPES, SIMULATED
from tests.unit.screenkit import FOUR, MANY, SCATTERED, make_host

Run = Callable[..., str]


@pytest.fixture
def run(run: clikit.Run) -> Run:
    """Return how to run a command that succeeds; it returns what the command printed."""

    def succeed(*arguments: object, columns: int = 80, **environ: str) -> str:
        status, out, err = run(*arguments, columns=columns, **environ)
        assert status == 0, err
        return out

    return succeed


@pytest.fixture(params=[FOUR, MANY, SCATTERED], ids=["four", "many", "scattered"])
def nodes(request: pytest.FixtureRequest) -> list[int]:
    return list(request.param)


@pytest.fixture
def host(tmp_path: Path, nodes: Iterable[int]) -> Path:
    return make_host(tmp_path, nodes)


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize(
    "command",
    [
        ["show"],
        ["show", "--job", "72"],
        ["show", "--pid", "7300"],
        ["plan", "--pid", "7300", *SIMULATED],
        ["relocate", "--pid", "7300", *SIMULATED],
        ["relocate", "--job", "72", *SIMULATED],
    ],
    ids=lambda command: "-".join(command[:3]).replace("---", "-"),
)
def test_no_line_is_wider_than_the_terminal(
    run: Run, host: Path, nodes: list[int], command: list[str], columns: int
) -> None:
    half = len(nodes) // 2
    if command[0] != "show":
        pairs = zip(nodes[:half], nodes[half:], strict=True)
        command = [*command, "--map", ",".join(f"{old}:{new}" for old, new in pairs)]
    out = run(*command, "--root", host, columns=columns)
    assert max(map(cell_len, out.splitlines())) <= columns
    assert all(char.isprintable() or char == "\n" for char in out)
    for node in (nodes[0], nodes[-1]):
        assert re.search(rf"\b{node}\b", out), node


@pytest.mark.parametrize("command", [["show", "--pid", "7300"], ["show"]])
def test_the_name_of_a_process_cannot_control_the_terminal(
    run: Run, four: Path, command: list[str]
) -> None:
    out = ESCAPES.sub("", run(*command, "--root", four, FORCE_COLOR="1", TERM="xterm"))
    assert not {"\x1b", "\x07", "\u202e"} & set(out)
    if len(command) > 1:
        assert "\\x1b]0;owned\\x07" in out
        assert "[red]" in out


def test_one_job(run: Run, four: Path) -> None:
    expected = """\
slurm job 72 of root
processors 6-7, nodes 3
2.3 GiB in 2 processes, 1.1 GiB off-node (48 %)

all processes
node 0   ▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒    1.1 GiB  39.1 GiB free  anon 1.1 GiB, file 2…
node 3*  ██████████████████████  1.2 GiB  39.9 GiB free  anon 1.2 GiB
nothing on 2 other nodes
██ on-node   ▒▒ off-node   ▓▓ shared files   * node of its processors

  pid  command                       nodes   memory  off-node        where
 ──────────────────────────────────────────────────────────────────────────────
 7201  ./simulate --steps 100000 -…  3      1.1 GiB   1.1 GiB  99 %  0: 1.1 GiB
 7200  ./simulate --steps 100000 -…  3      1.2 GiB         -

to bring it home: schedhook relocate --job 72 --home
"""
    out = run("show", "--root", four, "--job", 72)
    assert [line.rstrip() for line in out.splitlines()] == expected.splitlines()


@pytest.mark.parametrize(
    ("target", "remedy"),
    [
        (["--job", "72"], "--job 72"),
        (["--pid", "7201", "--pid", "7200"], "--pid 7201 --pid 7200"),
        (["--cgroup", "/system.slice/slurmstepd.scope/job_72"], None),
        ([], "--all"),
    ],
)
def test_the_last_line_is_the_command_that_brings_memory_home(
    run: Run, four: Path, target: list[str], remedy: str | None
) -> None:
    last = run("show", "--root", four, *target, columns=120).splitlines()[-1]
    wanted = " ".join(target) if remedy is None else remedy
    assert last == f"to bring it home: schedhook relocate {wanted} --home"


def test_where_nothing_is_off_node_there_is_nothing_to_mend(run: Run, four: Path) -> None:
    assert "--home" not in run("show", "--root", four, "--job", 71)


def test_a_cgroup(run: Run, four: Path) -> None:
    name = "system.slice/slurmstepd.scope/job_72"
    out = run("show", "--root", four, "--cgroup", name)
    assert out.splitlines()[:2] == [f"cgroup {name}", "processors 6-7, nodes 3"]
    assert "2.3 GiB in 2 processes, 1.1 GiB off-node (48 %)" in out


def test_all_jobs_with_most_off_node_memory_first(run: Run, four: Path) -> None:
    out = run("show", "--root", four)
    assert re.findall(r"slurm (\d+)", out) == ["72", "73", "71"]
    assert "3 jobs on this host" in out
    assert run("show", "--all", "--root", four) == out


def test_no_jobs_at_all(run: Run, tmp_path: Path) -> None:
    make_host(tmp_path, FOUR)
    for path in tmp_path.glob("sys/fs/cgroup/system.slice/*/job_*/*/*/*/cgroup.procs"):
        path.write_text("")
    out = run("show", "--root", tmp_path)
    assert "0 jobs on this host" in out
    assert "node 3" in out


def test_much_off_node_memory_is_red(run: Run, four: Path) -> None:
    out = run("show", "--job", 72, "--root", four, FORCE_COLOR="1", TERM="xterm")
    assert "\x1b[1;31m2.3 GiB in 2 processes, 1.1 GiB off-node (48 %)" in out
    calm = run("show", "--job", 71, "--root", four, FORCE_COLOR="1", TERM="xterm")
    assert "31m" not in calm


def test_jobs_are_shown_as_people_write_them(run: Run, four: Path) -> None:
    """With their names, their users, and whether they are suspended."""
    variables = "SLURM_JOB_ID=72\0SLURM_JOB_NAME=sw\x1b[2Jeep\0SLURM_ARRAY_JOB_ID=70\0"
    for pid in (7200, 7201):
        (four / f"proc/{pid}/environ").write_text(f"{variables}SLURM_ARRAY_TASK_ID=2\0")
        for status in four.glob(f"proc/{pid}/**/status"):
            status.write_text(status.read_text().replace("State:\tS", "State:\tT"))
    out = run("show", "--root", four, columns=140)
    (row,) = [line.split() for line in out.splitlines() if "slurm 70_2" in line]
    assert row[2:5] == ["sw\\x1b[2Jeep", "root", "suspended"]
    assert "slurm 72" not in out
    assert "suspended" in run("show", "--root", four, columns=80)
    title = 'slurm job 70_2 (72) "sw\\x1b[2Jeep" of root, suspended'
    for job in ("70_2", "70_[2]", "72"):
        assert run("show", "--root", four, "--job", job).splitlines()[0] == title
    shown = json.loads(run("show", "--root", four, "--job", "70_2", "--json"))
    assert (shown["job"], shown["alias"], shown["user"]) == ("72", "70_2", 0)
    assert shown["suspended"] is True


def test_the_number_of_an_array_is_an_error(run: Run, four: Path) -> None:
    """Also for plan: it was the job of the last element that moved, silently."""
    for job, pid, task in ((72, 7200, 1), (73, 7300, 2)):
        text = f"SLURM_JOB_ID={job}\0SLURM_ARRAY_JOB_ID=73\0SLURM_ARRAY_TASK_ID={task}\0"
        (four / f"proc/{pid}/environ").write_text(text)
    for command in (["show"], ["plan", *SIMULATED, "--to", "2"]):
        with pytest.raises(AssertionError, match=r"73 is an array; .* 73_1 \(job 72\), 73_2"):
            run(*command, "--root", four, "--job", 73)
    plan = json.loads(run("plan", *SIMULATED, "--to", 2, "--root", four, "--job", "73_1", "--json"))
    assert plan["job"] == "72"


def test_sizes_that_are_upper_bounds_are_noted(run: Run, four: Path) -> None:
    """Two processes share pages since fork(2), and nothing tells which."""
    heap = FakeArea(start=1 << 32, size=1 << 20, pages={0: 256}, mappers=2)
    for pid in (9001, 9002):
        write_process(four, pid, areas=[heap])
    both = ("--pid", 9001, "--pid", 9002)
    assert "pages shared since fork(2)" in run("show", "--root", four, *both)
    assert "pages shared since fork(2)" not in run("show", "--root", four, "--pid", 9001)
