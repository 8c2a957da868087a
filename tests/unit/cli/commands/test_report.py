"""`schedhook report`: where the page goes, and its figures."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from schedhook.cli import host_report
from tests.unit.cli.output.html.hostkit import NAME, write_journal
from tests.unit.clikit import Run
from tests.unit.picturekit import Page
from tests.unit.screenkit import MIB, make_host


@pytest.fixture
def host(tmp_path: Path) -> Path:
    host = make_host(tmp_path / "host")
    write_journal(host)
    return host


@pytest.fixture
def run(run: Run, host: Path, tmp_path: Path) -> Run:
    """Return how to run `schedhook report` on a host with a journal."""
    config = tmp_path / "config.toml"
    config.write_text('[journal]\npath = "/journal/journal.db"\n')

    def report(*arguments: object) -> tuple[int, str, str]:
        return run("report", "--root", host, "--config", config, *arguments)

    return report


def test_the_page_says_what_happened_within_a_day(run: Run) -> None:
    status, out, err = run("--html", "-")
    assert (status, err) == (0, "")
    page = Page(out)
    assert "1000.0 MiB" in page.text  # moved two hours ago
    assert "1.1 GiB" in page.text  # off-node now
    assert "100.0 MiB (EBUSY)" in page.text
    assert "no-room" in page.text
    assert "nothing avoided" not in page.text  # said at a job's end; no decision
    assert "24 GiB-hours" in page.text  # of the 36 since the memory came home
    assert "slurm 72_1 (72)" in page.text
    assert "to bring it home: schedhook relocate --all --home" in page.text


def test_since(run: Run) -> None:
    shown = json.loads(run("--since", "31h", "--json")[1])
    assert [move["bytes_moved"] for move in shown["moves"]] == [1000 * MIB, 1100 * MIB]
    assert shown["off_node_gib_hours_avoided"] == pytest.approx(31, abs=0.01)
    shown = json.loads(run("--since", "2w", "--json")[1])
    assert [each["verdict"] for each in shown["decisions"]] == ["no-room", "move"]
    assert shown["off_node_gib_hours_avoided"] == pytest.approx(36, abs=0.01)
    shown = json.loads(run("--since", "1h", "--json")[1])
    assert (shown["moves"], shown["decisions"]) == ([], [])


def test_json_has_what_the_page_has(run: Run) -> None:
    shown = json.loads(run("--json")[1])
    assert {job["job"] for job in shown["jobs"]} == {"71", "72", "73"}
    assert shown["nodes"]["3"]["total"] == 65536 * MIB
    (move,) = shown["moves"]
    assert (move["job"], move["alias"], move["node_map"]) == ("72", "72_1", {"0": 3, "1": 3})
    (decision,) = shown["decisions"]
    assert decision["name"] == NAME
    assert shown["problems"] == []


def test_hostile_names_stay_text(run: Run) -> None:
    page = Page(run("--html", "-")[1])
    assert "script" not in page.tags
    assert not page.links
    assert "<script>alert(1)</script>&\"'[red]" in page.text
    assert page.text.isascii() or "\x1b" not in page.text


def test_a_scheduler_without_jobs(run: Run) -> None:
    status, out, _ = run("--scheduler", "pbs", "--html", "-")
    assert status == 0
    assert "no job on this host" in out
    assert "72_1" not in out


def test_the_file_is_replaced_and_nothing_else_is(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "x.html"
    file.write_text("earlier")
    assert run("--html", file) == (0, "", "")
    assert file.read_text().startswith("<!DOCTYPE html>")
    (tmp_path / "link").symlink_to(file)
    os.mkfifo(tmp_path / "pipe")
    for place in ("link", "pipe", "host"):
        status, out, err = run("--html", tmp_path / place)
        assert (status, out, err.count("\n")) == (2, "", 1)
        assert "not a plain file" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [([], "name the file"), (["--html", "-", "--json"], "both print"), (["--html", ""], "empty")],
)
def test_wrong_usage(run: Run, words: list[str], said: str) -> None:
    status, out, err = run(*words)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert said in err


def test_a_host_without_a_journal(run: Run, host: Path) -> None:
    (host / "journal").rename(host / "elsewhere")
    status, out, err = run("--html", "-")
    assert (status, err) == (0, "")
    assert "no journal yet" in out


def test_a_page_that_lacks_runs_says_so(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_report, "_MOST_RUNS", 2)
    (problem,) = json.loads(run("--json")[1])["problems"]
    assert "only the latest 2 runs" in problem


@pytest.mark.skipif(os.geteuid() != 0, reason="gives the journal to another user")
def test_a_journal_that_is_not_trusted(run: Run, host: Path) -> None:
    os.chown(host / "journal" / "journal.db", 65534, -1)
    shown = json.loads(run("--json")[1])
    assert shown["moves"] == []
    assert "journal" in shown["problems"][0]
