"""`schedhook history` on a journal of four jobs."""

from __future__ import annotations

import json
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest

from schedhook.journal.journal import Journal
from schedhook.values.model import Event, NodeMap, Outcome, Placement, ProcessReport, Report
from schedhook.values.sets import CpuSet, NodeSet
from tests.unit.clikit import Run

MIB = 1 << 20
HOUR = 3600.0

PARTIAL = Report(
    outcome=Outcome.PARTIAL,
    strategy="move-pages",
    backend="native",
    node_map=NodeMap(pairs={0: 3}),
    job="72",
    bytes_planned=1100 * MIB,
    bytes_moved=1000 * MIB,
    bytes_left=100 * MIB,
    left_by_reason={"EBUSY": 100 * MIB},
    attempts=5,
    seconds=2.5,
    processes=(
        ProcessReport(
            pid=7201,
            command="./<app>\x1b[2J",
            residency_before={0: 1100 * MIB},
            residency_after={0: 100 * MIB, 3: 1000 * MIB},
            bytes_moved=1000 * MIB,
            bytes_left=100 * MIB,
        ),
    ),
)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Return a configuration with a journal of four jobs.

    Job 71 ended a day ago; job 72 has run for two hours and was relocated; job 73 has just started;
    the name of a fourth, of a plug-in's scheduler, tries to clear the terminal.
    """
    directory = tmp_path / "journal"
    directory.mkdir(mode=0o700)
    now = time.time()
    with Journal.open(directory / "journal.db") as journal:
        journal.runs.record_start("slurm", "71", 1000, now - 30 * HOUR)
        journal.runs.record_end("slurm", "71", now - 24 * HOUR)
        journal.runs.record_start("slurm", "72", 1000, now - 2 * HOUR)
        placement = Placement(cpus=CpuSet({0, 1}), nodes=NodeSet({0}))
        journal.placements.record("slurm", "72", {"0.0": placement}, at=now - 2 * HOUR)
        event = journal.events.put(Event(scheduler="slurm", point="look", job="72"), now - HOUR)
        assert event is not None
        journal.events.finish(event, "moved \x1b[31m" + "a word or two " * 12)
        journal.reports.add(PARTIAL, "slurm", "72")
        journal.runs.record_start("pbs", "73.server", 1001, now)
        journal.runs.record_start("plug-in", "\x1b[2J", 1001, now - 40 * HOUR)
        journal.runs.record_end("plug-in", "\x1b[2J", now - 39 * HOUR)
    config = tmp_path / "config.toml"
    config.write_text(f'[journal]\npath = "{directory / "journal.db"}"\n')
    return config


@pytest.fixture
def run(run: Run, config: Path) -> Run:
    """Return how to run `schedhook history` on the journal."""

    def history(*arguments: object, columns: int = 80) -> tuple[int, str, str]:
        return run("history", *arguments, "--config", config, columns=columns)

    return history


def jobs(printed: str) -> list[str]:
    return [run["job"] for run in json.loads(printed)]


@pytest.mark.parametrize("columns", [80, 120])
def test_one_line_per_run(run: Run, columns: int) -> None:
    status, out, _ = run(columns=columns)
    lines = [line.rstrip() for line in out.splitlines()]
    assert status == 0
    assert max(map(len, lines)) <= columns
    (row,) = [line.split() for line in lines if "slurm 72" in line]
    assert row[-5:] == ["1000.0", "MiB", "100.0", "MiB", "partial"]
    assert "open" in row
    assert any("pbs 73.server" in line for line in lines)
    assert any("plug-in \\x" in line for line in lines)  # cut if the terminal is narrow
    assert "\x1b" not in out


@pytest.mark.parametrize("columns", [80, 120])
def test_a_job_in_full_is_wrapped_and_never_cut(run: Run, columns: int) -> None:
    status, out, _ = run(72, columns=columns)
    assert status == 0
    assert max(map(len, out.splitlines())) <= columns
    words = " ".join(out.split())
    assert words.count("a word or two") == 12
    assert "\\x1b[31m" in out
    assert "0.0: processors 0-1, nodes 0" in words
    assert "1000.0 MiB 0:3, partial, 100.0 MiB left (EBUSY)" in words


@pytest.mark.parametrize(
    ("since", "expected"),
    [
        ("3h", ["72", "73.server"]),
        ("90m", ["72", "73.server"]),  # job 72 still runs
        ("25h", ["71", "72", "73.server"]),
        ("38h", ["71", "72", "73.server"]),
        ("4w", ["\x1b[2J", "71", "72", "73.server"]),
        ("2020-01-01", ["\x1b[2J", "71", "72", "73.server"]),
        ("2100-01-01T08:00", ["72", "73.server"]),
    ],
)
def test_since(run: Run, since: str, expected: list[str]) -> None:
    assert jobs(run("--since", since, "--json")[1]) == expected


@pytest.mark.parametrize(
    "since", ["yesterday", "3", "-2h", "2h30m", "", "9" * 400 + "w", "9" * 5000 + "w"]
)
def test_a_time_that_cannot_be_parsed(run: Run, since: str) -> None:
    status, out, err = run("--since", since)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "write it like 90m" in err


def test_limit_keeps_the_latest_runs(run: Run) -> None:
    assert jobs(run("--limit", 1, "--json")[1]) == ["73.server"]


def test_a_job_that_had_ended_before_since(run: Run) -> None:
    status, _, err = run(71, "--since", "3h")
    assert status == 2
    assert "no job '71' since then" in err


def test_a_picture_of_the_latest_relocation(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "x.svg"
    assert run(72, "--svg", file)[0] == 0
    texts = [each.text for each in ElementTree.parse(file).iter() if each.tag.endswith("text")]
    assert "job 72: partial, 1000.0 MiB moved, 100.0 MiB left" in texts
    assert "left: 100.0 MiB EBUSY" in texts
    assert "process 7201, ./<app>\\x1b[2J" in texts


@pytest.fixture
def array(config: Path) -> Path:
    """Two elements of an array, one of them suspended, and two components of another job."""
    named = {
        "38": ("36_2", "sweep"),
        "36": ("36_4", "sweep"),
        "50": ("50+0", ""),
        "51": ("50+1", ""),
    }
    with Journal.open(config.parent / "journal/journal.db") as journal:
        for job, (alias, name) in named.items():
            journal.runs.record_start("slurm", job, 0)
            journal.runs.describe("slurm", job, alias, name)
        for seconds, point in ((2, "suspended"), (1, "resumed"), (0, "suspended")):
            event = Event(scheduler="slurm", point=point, job="38")
            journal.events.put(event, time.time() - seconds)
    return config


@pytest.mark.usefixtures("array")
def test_jobs_are_printed_and_found_as_people_write_them(run: Run) -> None:
    out = run(columns=120)[1]
    (row,) = [line.split() for line in out.splitlines() if "slurm 36_2" in line]
    assert row[2:4] == ["sweep", "root"]
    assert "suspended" in row
    assert [line for line in out.splitlines() if "suspended" in line] != []
    assert "slurm job 36_2 (38) of root" in run("36_2")[1]
    for text, job in (("36_2", "38"), ("36_[2]", "38"), ("38", "38"), ("50+1", "51")):
        (found,) = json.loads(run(text, "--json")[1])
        assert (found["job"], found["suspended"]) == (job, job == "38")
    assert jobs(run("73", "--json")[1]) == ["73.server"]


@pytest.mark.usefixtures("array")
@pytest.mark.parametrize(("text", "members"), [("36", ["36_2", "36_4"]), ("50", ["50+0", "50+1"])])
def test_the_number_of_an_array_lists_its_elements(run: Run, text: str, members: list[str]) -> None:
    status, out, err = run(text)
    assert (status, out) == (2, "")
    assert all(each in err for each in members)


def test_a_picture_needs_something_to_draw(run: Run, tmp_path: Path) -> None:
    assert "name the job" in run("--svg", tmp_path / "x.svg")[2]
    status, _, err = run(71, "--html", tmp_path / "x.html")
    assert (status, err.count("\n")) == (2, 1)
    assert "no relocation to draw" in err
    assert not (tmp_path / "x.html").exists()


def test_what_keep_local_has_gained_is_printed(run: Run, config: Path) -> None:
    figures = {"verdict": "move", "kept": 0, "avoided_byte_s": 5400 << 30}
    event = Event(scheduler="slurm", point="keep-local", job="72", data=figures)
    with Journal.open(config.parent / "journal" / "journal.db") as journal:
        journal.events.add_handled(event, time.time() - 60, "9.0 MiB come home")
    _, out, _ = run(columns=160)
    (row,) = [line.split() for line in out.splitlines() if "slurm 72" in line]
    assert row[-1] == "1.5"
    _, out, _ = run("72", columns=160)
    assert "1.5 GiB-hours off-node avoided" in out
    assert "keep-local: 9.0 MiB come home" in out
    (shown,) = json.loads(run("72", "--json")[1])
    assert shown["off_node_gib_hours_avoided"] == 1.5
    assert shown["events"][-1]["figures"] == figures
