"""What administrators see: on terminals of any width, without colour, of hosts of any shape."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import termios
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from schedhook.cli.main import run as run_command
from schedhook.cli.output.bars import draw_bar
from schedhook.cli.output.charts import Bar, Tone
from schedhook.cli.output.text import cut, percent, size
from tests.unit.screenkit import FOUR, MANY, MIB, SCATTERED, make_host

Run = Callable[..., str]
ESCAPES = re.compile(r"\x1b\[[0-9;]*m")
COLOURS = re.compile(r"\x1b\[(?:[0-9]+;)*(?:3[0-7]|9[0-7])m")
SIMULATED = ("--backend", "simulated", "--reserve", "1")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command to its end and returns what it printed."""

    def run(*arguments: object, columns: int = 80, status: int = 0, **environ: str) -> str:
        for name in ("NO_COLOR", "FORCE_COLOR", "TERM"):
            monkeypatch.delenv(name, raising=False)
        for name, value in {"COLUMNS": str(columns), **environ}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", ["schedhook", *(str(each) for each in arguments)])
        with pytest.raises(SystemExit) as leave:
            run_command()
        printed = capsys.readouterr()
        assert leave.value.code == status, printed.err
        return printed.err if status else printed.out

    return run


@pytest.fixture(params=[FOUR, MANY, SCATTERED], ids=["four", "many", "scattered"])
def nodes(request: pytest.FixtureRequest) -> list[int]:
    return list(request.param)


@pytest.fixture
def host(tmp_path: Path, nodes: Iterable[int]) -> Path:
    return make_host(tmp_path, nodes)


@pytest.fixture
def four(tmp_path: Path) -> Path:
    return make_host(tmp_path)


# -- every screen ----------------------------------------------------------------------------------


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
def test_no_line_is_wider_than_the_screen(
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
def test_what_a_process_calls_itself_does_not_reach_the_terminal(
    run: Run, four: Path, command: list[str]
) -> None:
    out = ESCAPES.sub("", run(*command, "--root", four, FORCE_COLOR="1", TERM="xterm"))
    assert not {"\x1b", "\x07", "\u202e"} & set(out)
    if len(command) > 1:
        assert "\\x1b]0;owned\\x07" in out
        assert "[red]" in out


def test_one_job(run: Run, four: Path) -> None:
    expected = """\
slurm job 72
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
"""
    out = run("show", "--root", four, "--job", 72)
    assert [line.rstrip() for line in out.splitlines()][:-1] == expected.splitlines()


def test_a_cgroup(run: Run, four: Path) -> None:
    name = "system.slice/slurmstepd.scope/job_72"
    out = run("show", "--root", four, "--cgroup", name)
    assert out.splitlines()[:2] == [f"cgroup {name}", "processors 6-7, nodes 3"]
    assert "2.3 GiB in 2 processes, 1.1 GiB off-node (48 %)" in out


def test_all_jobs_with_the_worst_first(run: Run, four: Path) -> None:
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


def test_all_jobs_as_json(run: Run, four: Path) -> None:
    shown = json.loads(run("show", "--root", four, "--json"))
    assert [job["job"] for job in shown["jobs"]] == ["72", "73", "71"]
    assert shown["jobs"][0]["bytes_off_node"] == 1100 * MIB
    assert shown["jobs"][0]["placement"] == {"cpus": "6-7", "nodes": "3"}
    assert shown["nodes"]["0"]["total"] == 65536 * MIB


def test_a_target_and_all_contradict(run: Run, four: Path) -> None:
    assert "--all" in run("show", "--all", "--job", 72, "--root", four, status=2)


# -- colour and characters -------------------------------------------------------------------------


def test_much_off_node_memory_is_red(run: Run, four: Path) -> None:
    out = run("show", "--job", 72, "--root", four, FORCE_COLOR="1", TERM="xterm")
    assert "\x1b[1;31m2.3 GiB in 2 processes, 1.1 GiB off-node (48 %)" in out
    calm = run("show", "--job", 71, "--root", four, FORCE_COLOR="1", TERM="xterm")
    assert "31m" not in calm


@pytest.mark.parametrize(
    "environ",
    [{}, {"FORCE_COLOR": "1", "TERM": "xterm", "NO_COLOR": "1"}],
    ids=["pipe", "NO_COLOR"],
)
def test_without_colour_the_bars_still_differ(
    run: Run, four: Path, environ: dict[str, str]
) -> None:
    out = run("show", "--job", 72, "--root", four, **environ)
    assert not COLOURS.search(out)
    assert "▒▒▒▒" in out
    assert "████" in out


def test_a_terminal_of_ascii_alone(four: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "schedhook.cli.main", "show", "--job", "72", "--root", four],
        env={**os.environ, "PYTHONIOENCODING": "ascii", "COLUMNS": "80"},
        capture_output=True,
        check=True,
    )
    out = done.stdout.decode("ascii")
    assert "node 0   xxxxxxx" in out
    assert "node 3*  #######" in out


@given(
    parts=st.lists(st.integers(0, 1 << 40), min_size=2, max_size=4),
    more=st.integers(0, 1 << 40),
    width=st.integers(8, 60),
)
def test_a_bar_has_its_width_and_shows_every_part(parts: list[int], more: int, width: int) -> None:
    bar = Bar(node=0, parts=tuple(zip(Tone, parts, strict=False)))
    text = draw_bar(bar, max(sum(parts) + more, 1), width, Console(file=None)).plain
    assert len(text) == width
    assert ("█" in text) == (parts[0] > 0)
    assert ("▒" in text) == (parts[1] > 0)


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [
        (0, 0, "0 %"),
        (0, 9, "0 %"),
        (1, 9999, "<1 %"),
        (1, 100, "1 %"),
        (9998, 9999, "99 %"),
        (9, 9, "100 %"),
    ],
)
def test_percents_tell_nothing_and_all_apart_from_little_and_most(
    part: int, whole: int, text: str
) -> None:
    assert percent(part, whole) == text


def test_sizes() -> None:
    assert [size(n) for n in (0, 1023, 1536, 5 << 30, 3 << 42)] == [
        "0 B",
        "1023 B",
        "1.5 KiB",
        "5.0 GiB",
        "12.0 TiB",
    ]
    assert cut("abcdef", 4) == "abc…"


# -- plans -----------------------------------------------------------------------------------------


def test_a_plan_is_a_matrix(run: Run, four: Path) -> None:
    out = run("plan", "--pid", 7300, *SIMULATED, "--map", "0:2,1:3", "--root", four)
    rows = [line.split() for line in out.splitlines()]
    assert ["from", "\\", "to", "2", "3"] in rows
    assert ["0", "100.0", "MiB"] in rows
    assert ["1", "110.0", "MiB"] in rows
    assert ["arriving", "100.0", "MiB", "110.0", "MiB"] in rows


def test_a_plan_that_does_not_fit_the_screen_is_a_list(run: Run, tmp_path: Path) -> None:
    make_host(tmp_path, MANY)
    out = run(
        "plan", "--pid", 7300, *SIMULATED, "--from", "0-31", "--to", "32-63", "--root", tmp_path
    )
    rows = [line.split() for line in out.splitlines()]
    assert ["from", "to", "to", "move", "free"] in rows
    assert ["31", "63", "130.0", "MiB", "57.5", "GiB"] in rows


# -- terminals -------------------------------------------------------------------------------------


def on_terminal(command: list[str], *, stop_after: bytes | None = None) -> tuple[int, bytes]:
    """Run with standard error and output on a terminal: its exit status, what it wrote. SIGINT
    once `stop_after` was written."""
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (40, 100))
    environ = {
        key: value for key, value in os.environ.items() if key not in ("COLUMNS", "NO_COLOR")
    }
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "schedhook.cli.main", *command],
        stdout=slave,
        stderr=slave,
        env={**environ, "TERM": "xterm"},
    )
    os.close(slave)
    written = b""
    try:
        while True:
            try:
                written += os.read(master, 65536)
            except OSError:  # the last one has closed it
                break
            if stop_after and stop_after in written:
                process.send_signal(signal.SIGINT)
                stop_after = None
    finally:
        os.close(master)
    return process.wait(20), written


def test_watching_draws_over_the_screen_until_it_is_interrupted(four: Path) -> None:
    command = ["show", "--watch", "0.2", "--root", str(four)]
    status, written = on_terminal(command, stop_after=b"every 0.2 s")
    assert status == 0
    assert b"\x1b[?1049h" in written  # another screen, and back
    assert written.rstrip().endswith(b"\x1b[?25h") or b"\x1b[?1049l" in written


def test_watching_as_json_is_an_object_a_line(four: Path) -> None:
    command = [sys.executable, "-P", "-m", "schedhook.cli.main", "show", "--watch", "0.2"]
    with subprocess.Popen(
        [*command, "--json", "--root", four], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        shown = [json.loads(process.stdout.readline()) for _ in range(2)]
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    assert [len(each["jobs"]) for each in shown] == [3, 3]


def test_watching_ends_with_the_job(run: Run, four: Path) -> None:
    assert "job '99'" in run("show", "--watch", "--job", 99, "--root", four, status=2)


RELOCATE = ["relocate", "--job", "72", *SIMULATED, "--map", "0:3", "--bandwidth", "2000"]


def test_a_relocation_on_a_terminal_has_a_bar_with_rate_and_time_left(four: Path) -> None:
    status, written = on_terminal([*RELOCATE, "--root", str(four)])
    assert status == 0
    text = ESCAPES.sub("", written.decode())
    assert re.search(r"moving [^/]* [0-9.]+/1\.1 GiB [0-9.]+ [MG]B/s 00:0", text)


def test_json_on_a_terminal_has_no_bar(four: Path) -> None:
    status, written = on_terminal([*RELOCATE, "--json", "--root", str(four)])
    assert status == 0
    assert json.loads(written)["outcome"] == "complete"


def test_a_pipe_gets_no_bar(four: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "schedhook.cli.main", *RELOCATE, "--root", four],
        capture_output=True,
        check=True,
    )
    assert done.stderr == b""
