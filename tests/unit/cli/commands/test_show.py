"""`schedhook show`: what it prints as JSON, and how --watch ends."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

import pytest

from schedhook.testing.hosts import PAGE, FakeArea, write_file, write_process
from tests.unit.clikit import STOPS, Run, end, on_terminal, started
from tests.unit.screenkit import MIB, add_job


def test_bytes_by_process_and_kind(run: Run, host: Path) -> None:
    status, out, _ = run("show", "--root", host, "--pid", 100, "--json")
    shown = json.loads(out)
    assert status == 0
    assert shown["processes"][0]["residency"] == {"0": 8 * MIB, "1": 4 * MIB}
    assert shown["processes"][0]["kinds"]["anon"] == {"0": 8 * MIB, "1": 4 * MIB}


def test_all_jobs_as_json(run: Run, four: Path) -> None:
    shown = json.loads(run("show", "--root", four, "--json")[1])
    assert [job["job"] for job in shown["jobs"]] == ["72", "73", "71"]
    assert shown["jobs"][0]["bytes_off_node"] == 1100 * MIB
    assert shown["jobs"][0]["placement"] == {"cpus": "6-7", "nodes": "3"}
    assert shown["nodes"]["0"]["total"] == 65536 * MIB


@pytest.mark.parametrize(
    ("sort", "jobs"),
    [
        ("off-node", ["72", "73", "9", "71"]),
        ("share", ["73", "72", "9", "71"]),
        ("memory", ["71", "72", "73", "9"]),
        ("job", ["9", "71", "72", "73"]),
        ("name", ["9", "72", "73", "71"]),
        ("user", ["72", "9", "71", "73"]),
    ],
)
def test_jobs_are_sorted_and_the_first_of_them_listed(
    run: Run, four: Path, sort: str, jobs: list[str]
) -> None:
    add_job(four, 9, {900: (0, {0: 5})})
    for pid, name in ((900, "a"), (7200, "b"), (7300, "c"), (7100, "d")):
        number = str(pid)[:-2]
        write_file(four, f"proc/{pid}/environ", f"SLURM_JOB_ID={number}\0SLURM_JOB_NAME={name}\0")
    for pid in (7200, 7201):
        status = four / f"proc/{pid}/status"
        status.write_text(status.read_text().replace("Uid:\t0\t0\t0\t0", "Uid:\t1\t1\t1\t1"))
    words = ["show", "--root", four, "--sort", sort]
    shown = json.loads(run(*words, "--json")[1])
    assert [job["job"] for job in shown["jobs"]] == jobs
    assert shown["jobs_left_out"] == 0
    shown = json.loads(run(*words, "--top", 2, "--json")[1])
    assert [job["job"] for job in shown["jobs"]] == jobs[:2]
    assert shown["jobs_left_out"] == 2
    out = run(*words, "--top", 2)[1]
    assert re.findall(r"^ ?slurm (\d+)", out, re.MULTILINE) == jobs[:2]
    assert "2 of 4 jobs on this host" in out
    assert "2 jobs not listed: their memory is other memory here" in out


def test_only_the_jobs_of_one_user(run: Run, four: Path) -> None:
    for pid in (7200, 7201):
        status = four / f"proc/{pid}/status"
        status.write_text(status.read_text().replace("Uid:\t0\t0\t0\t0", "Uid:\t1\t1\t1\t1"))
    for user, jobs in (("root", ["73", "71"]), ("0", ["73", "71"]), ("1", ["72"]), ("4711", [])):
        shown = json.loads(run("show", "--root", four, "--user", user, "--json")[1])
        assert [job["job"] for job in shown["jobs"]] == jobs
    status, _, err = run("show", "--root", four, "--user", "no one")
    assert (status, err.count("\n")) == (2, 1)
    assert "'no one' is no user of this host" in err


@pytest.mark.parametrize("option", [["--sort", "job"], ["--top", 1], ["--user", "root"]])
def test_a_single_target_has_no_order(run: Run, four: Path, option: list[object]) -> None:
    status, _, err = run("show", "--job", 72, *option, "--root", four)
    assert status == 2
    assert "for the list of all jobs" in err


def test_the_bar_of_a_job_has_the_parts_of_the_hosts_bars(run: Run, four: Path) -> None:
    """Shared files count in neither as on-node memory."""
    shared = FakeArea(
        start=0x10000, size=512 * MIB, pages={3: 512 * MIB // PAGE}, path="/lib/x", mappers=90
    )
    write_process(four, 7300, areas=[shared], cpus="2", nodes="0-3")
    out = run("show", "--root", four, "--sort", "job")[1]
    bars = {line.split()[1]: line.split()[-1] for line in out.splitlines() if "slurm" in line}
    assert set(bars["73"]) == {"▓"}
    assert set(bars["71"]) == {"█"}


def test_a_target_and_all_contradict(run: Run, four: Path) -> None:
    status, _, err = run("show", "--all", "--job", 72, "--root", four)
    assert status == 2
    assert "--all" in err


def test_watching_takes_no_pictures(run: Run, four: Path, tmp_path: Path) -> None:
    status, _, err = run("show", "--root", four, "--watch", "--svg", tmp_path / "x.svg")
    assert status == 2
    assert "--watch" in err


def test_memory_policies_that_name_other_nodes(run: Run, four: Path) -> None:
    write_process(
        four,
        900,
        cpus="2",
        threads={900: "S", 901: "S"},
        areas=[
            FakeArea(start=PAGE, size=PAGE, path="/bin/app", policy="bind:1"),
            FakeArea(start=8 * PAGE, size=2 * MIB, policy="interleave:1-2"),
            FakeArea(start=MIB * 4, size=MIB, pages={1: 3}, policy="bind:1"),
        ],
    )
    text = f"{PAGE:08x} prefer:3 file=/bin/app N1=1\n"
    write_file(four, "proc/900/task/901/numa_maps", text)
    shown = json.loads(run("show", "--root", four, "--pid", 900, "--json")[1])
    assert shown["off_node_policies"] == {"threads": 1, "bytes": 2 * MIB}
    assert shown["processes"][0]["off_node_policies"] == [
        {"policy": "interleave:1-2", "threads": [], "bytes": 2 * MIB},
        {"policy": "prefer:3", "threads": [901], "bytes": 0},
    ]
    out = run("show", "--root", four, "--pid", 900)[1]
    assert "process 900, on node 1: prefer:3 governs 1 thread" in " ".join(out.split())


# -- --watch -------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", ["0", "1e308", "nan"])
def test_an_interval_that_no_clock_has(run: Run, four: Path, seconds: str) -> None:
    status, out, err = run("show", "--watch", seconds, "--root", four)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "--watch" in err


def test_watching_ends_with_the_job(run: Run, four: Path) -> None:
    status, _, err = run("show", "--watch", "--job", 99, "--root", four)
    assert status == 2
    assert "job '99'" in err


@pytest.mark.parametrize("number", STOPS)
def test_watching_draws_over_the_screen_and_restores_it(four: Path, number: int) -> None:
    status, written = on_terminal(
        "show", "--watch", "0.2", "--root", four, stop_after=b"every 0.2 s", stop_by=number
    )
    assert status == 0
    assert b"\x1b[?1049h" in written  # the alternate screen
    after = written.rpartition(b"every 0.2 s")[2]
    assert b"\x1b[?1049l" in after  # and back
    assert b"\x1b[?25h" in after  # the cursor is visible again
    assert b"Traceback" not in written


def test_watching_ends_when_its_terminal_hangs_up(four: Path) -> None:
    """The screen cannot be restored any more."""
    status, _ = on_terminal(
        "show", "--watch", "0.2", "--root", four, stop_after=b"every 0.2 s", stop_by=None
    )
    assert status == 0


@pytest.mark.parametrize("number", STOPS)
def test_watching_as_json_prints_an_object_per_line(four: Path, number: int) -> None:
    with started("show", "--watch", "0.2", "--json", "--root", four) as process:
        assert process.stdout is not None
        shown = [json.loads(process.stdout.readline()) for _ in range(2)]
        assert end(process, number) == 0
    assert [len(each["jobs"]) for each in shown] == [3, 3]


@pytest.mark.parametrize("ignored", [signal.SIGINT, signal.SIGHUP])
def test_watching_in_the_background_ends_by_sigterm(four: Path, ignored: int) -> None:
    """As a script's background job, or under nohup: the signal that is ignored does not end it."""
    command = ("show", "--watch", "0.2", "--json", "--root", four)
    with started(*command, ignoring=[ignored]) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(ignored)
        for _ in range(3):
            assert json.loads(process.stdout.readline())
        assert end(process, signal.SIGTERM) == 0
