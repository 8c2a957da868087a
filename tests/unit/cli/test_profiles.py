"""`relocate --profile LOG`: a strategy gets the accesses of the request's processes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from schedhook.backends.simulated import PAGE
from schedhook.testing.hosts import FakeArea, FakeNode, write_host, write_process
from tests.unit.clikit import Run

AT = 0x7F0000000000


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """Return a host with process 100, which has 8 pages on node 0."""
    write_host(tmp_path, [FakeNode(number=n, cpus=str(n)) for n in range(4)])
    area = FakeArea(start=AT, size=16 * PAGE, pages={0: 8})
    write_process(tmp_path, 100, areas=[area], cpus="0-3", nodes="0-3")
    return tmp_path


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log.csv"
    path.write_text(f"pid,cpu,address\n100,2,{AT:#x}\n")
    return path


def relocate(run: Run, host: Path, *more: object) -> tuple[int, str, str]:
    words = ("relocate", "--pid", 100, "--from", 0, "--to", 2, "--root", host)
    return run(*words, "--backend", "simulated", "--strategy", "hot-first", *more)


def test_with_a_profile_nothing_else_is_asked(run: Run, host: Path, log: Path) -> None:
    status, out, _ = relocate(run, host, "--profile", log, "--json")
    report = json.loads(out)
    assert (status, report["outcome"], report["bytes_moved"]) == (0, "complete", 8 * PAGE)
    assert report["notes"] == []


def test_without_one_a_note_says_what_came_first(run: Run, host: Path) -> None:
    status, out, _ = relocate(run, host, "--json")
    (note,) = json.loads(out)["notes"]
    assert status == 0
    assert note.endswith("(nothing is accessed in a simulation): the largest areas first")


@pytest.mark.parametrize(
    ("log", "words"),
    [("none", "cannot read"), ("other", "no usable sample of these"), ("empty", "it is empty")],
)
def test_a_log_of_no_use_is_an_error(run: Run, host: Path, log: str, words: str) -> None:
    (host / "other").write_text(f"pid,cpu,address\n999,2,{AT:#x}\n")
    (host / "empty").write_text("")
    status, out, err = relocate(run, host, "--profile", host / log)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert words in err


def test_a_profile_is_of_one_request(run: Run, log: Path) -> None:
    status, _, err = run("relocate", "--all", "--home", "--profile", log)
    assert status == 2
    assert "leave out --all" in err
