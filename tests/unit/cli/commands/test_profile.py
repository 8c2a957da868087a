"""`schedhook profile`: its plan, its move, what it prints, and wrong usage."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import pytest

from schedhook.backends.simulated import PAGE
from schedhook.testing.hosts import FakeArea, FakeNode, write_host, write_process
from tests.unit import clikit
from tests.unit.clikit import Run
from tests.unit.migration.test_page_choice import AT

AREA = FakeArea(start=AT, size=16 * PAGE, pages={0: 8})


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """Return a host with process 100 (threads 100, 101; processors 0-1) and process 300."""
    write_host(tmp_path, [FakeNode(number=n, cpus=str(n)) for n in range(4)])
    (tmp_path / "proc/stat").write_text("cpu 0\nbtime 1000000\n")
    write_process(
        tmp_path, 100, areas=[AREA], cpus="0-1", nodes="0-3", threads={100: "S", 101: "S"}
    )
    write_process(tmp_path, 300, areas=[AREA], cpus="2", nodes="0-3")
    return tmp_path


@pytest.fixture
def run(run: clikit.Run, host: Path) -> clikit.Run:
    """Return how to run `schedhook profile` on the host."""

    def profile(*arguments: object) -> tuple[int, str, str]:
        return run("profile", *arguments, "--root", host, "--backend", "simulated")

    return profile


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Return a log in which node 1 uses the first four pages of process 100."""
    path = tmp_path / "log"
    lines = [f"app 100/101 [001] 1.5: 1 page-faults: {AT + n % 4 * PAGE:x}\n" for n in range(20)]
    lines += [f"app 100/100 [000] 1.5: 1 page-faults: {AT + 5 * PAGE:x}\n"] * 5
    lines += ["app 999/999 [000] 1.5: 1 page-faults: 1000\n", "?\n"]
    path.write_text("".join(lines))
    return path


def test_only_a_plan_by_default(run: Run, log: Path) -> None:
    status, out, err = run(log, "--pid", 100, "--json")
    report = json.loads(out)
    assert (status, err, report["outcome"]) == (0, "", "planned")
    assert report["strategy"] == "profile-guided"
    assert report["plan"]["moves"] == [{"from": 0, "to": 1, "bytes": 4 * PAGE}]
    assert report["bytes_kept"] == {"left-by-strategy": 4 * PAGE}
    profile = report["profile"]
    assert (profile["lines"], profile["bad_lines"], profile["samples"]) == (27, 1, 26)
    assert profile["unused"] == {"process-gone": 1}
    assert (profile["accesses"], profile["local_before"], profile["local_after"]) == (25, 5, 25)
    assert profile["nodes"] == "0-1"
    assert profile["processes"][0]["pairs"] == [
        {"accessing": 0, "memory": 0, "before": 5, "after": 5},
        {"accessing": 1, "memory": 0, "before": 20, "after": 0},
        {"accessing": 1, "memory": 1, "before": 0, "after": 20},
    ]


def test_with_move_the_pages_move(run: Run, log: Path) -> None:
    status, out, _ = run(log, "--pid", 100, "--move", "--json")
    report = json.loads(out)
    assert (status, report["outcome"], report["bytes_moved"]) == (0, "complete", 4 * PAGE)
    assert report["processes"][0]["residency_after"] == {"0": 4 * PAGE, "1": 4 * PAGE}


def test_the_text_for_people(run: Run, log: Path) -> None:
    status, out, _ = run(log, "--pid", 100)
    assert status == 0
    assert "local accesses: 20 % before, 100 % after" in out
    assert "not used: 1 process-gone" in out


def test_the_log_from_standard_input(run: Run, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with log.open() as file:
        monkeypatch.setattr(sys, "stdin", file)
        status, out, _ = run("-", "--pid", 100, "--json")
    assert (status, json.loads(out)["bytes_planned"]) == (0, 4 * PAGE)


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["--pid", "300"], 2, "no usable sample of these processes: 1 are of processes"),
        (["--pid", "100", "--min-share", "2"], 2, "--min-share"),
        (["--pid", "100", "--format", "csv"], 2, "pid,cpu,address"),
        (["--pid", "100", "--kinds", "swap"], 2, "anon"),
        (["--pid", "100", "--strategy", "move-pages"], 2, "page by page"),
        (["--pid", "100", "--strategy", "none"], 2, "profile-guided"),
        ([], 2, "one of --pid"),
    ],
)
def test_errors_are_one_line(
    run: Run, log: Path, arguments: list[str], status: int, words: str
) -> None:
    got, out, err = run(log, *arguments)
    assert (got, out, err.count("\n")) == (status, "", 1), err
    assert words in err


def test_a_log_that_cannot_be_read(run: Run, tmp_path: Path) -> None:
    for path, words in ((tmp_path / "none", "No such file"), (tmp_path, "directory")):
        status, _, err = run(path, "--pid", 100)
        assert (status, err.count("\n")) == (2, 1)
        assert words in err


def test_an_old_log_says_nothing_of_a_new_process(run: Run, log: Path) -> None:
    os.utime(log, (1_000_000, 1_000_000))
    status, _, err = run(log, "--pid", 100)
    assert status == 2
    assert "26 are of processes that have exited" in err
    os.utime(log, (time.time(), time.time()))
    assert run(log, "--pid", 100)[0] == 0
