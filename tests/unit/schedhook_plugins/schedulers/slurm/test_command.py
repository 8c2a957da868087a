"""job-migrate's command line: the journal that it uses, and what it passes to a job's hosts."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import click
import pytest

from schedhook.journal.errors import JournalError
from schedhook.journal.journal import Journal
from schedhook.journal.reports import Reports
from schedhook.testing.hosts import write_file
from schedhook.values.errors import (
    NoPermissionError,
    RefusedError,
    SchedhookError,
    UsageError,
)
from schedhook.values.model import Outcome, PlacementOverride
from schedhook_plugins.schedulers.slurm import command as command_module
from schedhook_plugins.schedulers.slurm.answers import JobAnswer
from schedhook_plugins.schedulers.slurm.command import command
from schedhook_plugins.schedulers.slurm.migrate import check_later_steps
from tests.unit.clikit import make_runner
from tests.unit.schedhook_plugins.schedulers.slurm.job_host import JOB, JobHost, place


def run(*words: str) -> dict[str, Any]:
    """Run the command and return its JSON."""
    result = make_runner().invoke(command, [*words, "--json"], standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    answer = json.loads(result.stdout)
    assert isinstance(answer, dict)
    return answer


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration that names a journal other than the default one."""
    path = tmp_path / "config.toml"
    path.write_text(f'[journal]\npath = "{tmp_path}/configured.db"\n')
    return path


@pytest.fixture
def here(job_host: JobHost, monkeypatch: pytest.MonkeyPatch) -> JobHost:
    """A host with job 7 on which the command acts, whatever becomes of the job's next steps."""
    monkeypatch.setattr(command_module, "check_later_steps", lambda *_: None)
    monkeypatch.setattr(command_module, "HostJobs", lambda host: job_host.here)  # noqa: ARG005
    monkeypatch.setattr(
        command_module, "relocate", lambda request, _config, _plugins: job_host.relocate(request)
    )
    return job_host


def test_an_override_is_recorded_in_the_configured_journal(here: JobHost, config: Path) -> None:
    """The agent reads that journal, and would not reapply an override of another."""
    words = ("7", "--this-host", "--config", str(config))
    (moved,) = run(*words, "--cpus", "2-3")["hosts"]
    assert (moved["outcome"], moved["notes"]) == ("complete", [])
    assert here.bound() == {200: "2", 201: "3"}
    with Journal.open(config.with_name("configured.db")) as journal:
        override = journal.overrides.get("slurm", "7")
        assert override is not None
        assert (override.was, override.placement) == (place("0-1"), place("2-3"))
        (released,) = run(*words, "--release")["hosts"]
        assert released["notes"] == [
            "override dropped: Slurm's next step in the job places it again"
        ]
        assert journal.overrides.get("slurm", "7") is None
    assert run(*words, "--release")["hosts"][0]["notes"] == ["the job had no override"]


@pytest.mark.parametrize("dry_run", [[], ["--dry-run"]])
def test_a_job_that_is_off_is_moved_all_the_same_and_that_is_said(
    here: JobHost, config: Path, dry_run: list[str]
) -> None:
    write_file(here.here.root, "proc/200/environ", "SLURM_JOB_ID=7\0SCHEDHOOK=off\0")
    words = ("7", "--this-host", "--config", str(config), "--cpus", "2-3", *dry_run)
    (moved,) = run(*words)["hosts"]
    assert moved["outcome"] == ("planned" if dry_run else "complete")
    assert moved["notes"] == [
        "job 7 is off, as the job chose (SCHEDHOOK=off): this command overrides it"
    ]


@pytest.mark.parametrize("dry_run", [[], ["--dry-run"]])
def test_a_job_on_version_1_is_only_moved_by_force(
    here: JobHost, config: Path, monkeypatch: pytest.MonkeyPatch, dry_run: list[str]
) -> None:
    monkeypatch.setattr(command_module, "check_later_steps", check_later_steps)
    words = ("7", "--this-host", "--config", str(config), "--cpus", "2-3", *dry_run)
    with pytest.raises(RefusedError, match="version 1"):
        run(*words)
    assert here.is_untouched()
    with Journal.open(config.with_name("configured.db")) as journal:
        assert journal.overrides.get("slurm", "7") is None
    (moved,) = run(*words, "--force")["hosts"]
    assert moved["outcome"] == ("planned" if dry_run else "complete")


def test_a_strict_move_takes_no_processors_of_other_jobs(here: JobHost, config: Path) -> None:
    here.cpuset("slurm/uid_5/job_8", "2")
    words = ("7", "--this-host", "--config", str(config), "--cpus", "2-3")
    with pytest.raises(RefusedError, match="job 8 has 2"):
        run(*words, "--strict")
    assert here.is_untouched()
    (moved,) = run(*words)["hosts"]
    assert (moved["outcome"], moved["notes"]) == ("complete", ["job 8 has processors 2 too"])


def test_only_root_may_and_that_is_said_once(
    here: JobHost, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(NoPermissionError, match="run as root"):
        run("7", "--this-host", "--config", str(config), "--cpus", "2-3")
    assert here.is_untouched()


def test_a_job_that_ends_meanwhile_is_said_to(
    here: JobHost, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """scancel, say."""

    def ends(request: Any, _config: object, _plugins: object) -> Any:
        if not request.dry_run:
            shutil.rmtree(here.here.cgroups("7")[0].path)
        return here.relocate(request)

    monkeypatch.setattr(command_module, "relocate", ends)
    words = ["7", "--this-host", "--config", str(config), "--cpus", "2-3"]
    result = make_runner().invoke(command, words, standalone_mode=False)
    assert "the job ended while it was moved" in result.stderr
    with Journal.open(config.with_name("configured.db")) as journal:
        assert journal.overrides.get("slurm", "7") is None


def test_a_dry_run_records_nothing(here: JobHost, config: Path) -> None:
    words = ("7", "--this-host", "--config", str(config), "--cpus", "2-3", "--dry-run")
    (planned,) = run(*words)["hosts"]
    assert (planned["outcome"], planned["new"]["cpus"]) == ("planned", "2-3")
    assert here.is_untouched()
    assert run("7", "--this-host", "--config", str(config), "--release")["hosts"][0]["notes"] == [
        "the job had no override"
    ]
    assert not config.with_name("configured.db").exists()


def test_a_report_that_cannot_be_recorded_does_not_stop_the_move(
    here: JobHost, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The memory has moved by then, and nothing would know of it."""

    def fail(*_: object) -> None:
        raise JournalError("the disk is full")

    monkeypatch.setattr(Reports, "add", fail)
    words = ["7", "--this-host", "--config", str(config), "--cpus", "2-3"]
    result = make_runner().invoke(command, words, standalone_mode=False)
    assert ": complete, " in result.stdout
    assert "the disk is full" in result.stderr
    assert here.bound() == {200: "2", 201: "3"}


def test_what_stayed_is_reported_with_its_reason(here: JobHost, config: Path) -> None:
    here.outcomes, here.left = [Outcome.PARTIAL], {"hidden": 3 << 20, "EBUSY": 1 << 20}
    words = ["7", "--this-host", "--config", str(config), "--cpus", "2-3"]
    result = make_runner().invoke(command, words, standalone_mode=False)
    assert "partial, processors 0-1 -> 2-3, nodes 0-1 -> 2-3" in result.stdout
    assert "moved 100.0 MiB, left 4.0 MiB (hidden, EBUSY)" in result.stdout


def test_tasks_move_in_an_order_in_which_no_map_overlaps(here: JobHost, config: Path) -> None:
    """Processor 1 becomes 0 and 3 becomes 1: node 1 is vacated before memory arrives there."""
    here.cpuset(JOB, "1,3")
    here.cpuset(f"{JOB}/step_0", "1,3", [200, 201])
    here.bind(200, {1})
    here.bind(201, {3})
    run("7", "--this-host", "--config", str(config), "--cpus", "0-1")
    moved = [asked[:2] for asked in here.asked() if not asked[2]]
    assert moved == [({1: 0}, (200,)), ({3: 1}, (200, 201))]


def test_an_interrupt_rolls_the_override_back(
    here: JobHost, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(request: Any, _config: object, _plugins: object) -> Any:
        if request.dry_run:
            return here.relocate(request)
        raise KeyboardInterrupt

    monkeypatch.setattr(command_module, "relocate", fails)
    earlier = PlacementOverride(was=place("0-1"), placement=place("0-1"))
    with Journal.open(config.with_name("configured.db")) as journal:
        journal.overrides.set("slurm", "7", earlier)
        with pytest.raises(click.Abort):
            command.main(
                ["7", "--this-host", "--config", str(config), "--cpus", "2-3"],
                standalone_mode=False,
            )
        override = journal.overrides.get("slurm", "7")
    assert here.is_untouched()
    assert override is not None
    assert (override.placement, override.under_way) == (place("0-1"), False)


def test_each_host_of_a_job_gets_the_same_arguments(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[tuple[str, ...], list[str]]] = []

    def run_on_hosts(hosts: tuple[str, ...], words: list[str], _seen: Any) -> list[dict[str, Any]]:
        asked.append((hosts, words))
        return [{"host": "n1", "status": 0}, {"host": "n2", "status": 0}]

    answer = JobAnswer(number="7", hosts=("n1", "n2"))
    monkeypatch.setattr(command_module, "query_job", lambda _job: answer)
    monkeypatch.setattr(command_module, "run_on_hosts", run_on_hosts)
    words = ["7", "--cpus", "2-3", "--dry-run", "--config", str(config)]
    assert command.main([*words, "--json"], standalone_mode=False) == 0
    assert asked == [(("n1", "n2"), words)]


@pytest.mark.parametrize(
    ("statuses", "status"),
    [([0, 0], 0), ([0, 1], 3), ([0, 4], 3), ([3, 4], 3), ([4, 4], 4), ([1, 4], 1), ([4, 4, 2], 4)],
)
def test_the_exit_status_is_partial_if_a_part_was_done(
    config: Path, monkeypatch: pytest.MonkeyPatch, statuses: list[int], status: int
) -> None:
    hosts = tuple(f"n{number}" for number in range(len(statuses)))
    answer = JobAnswer(number="7", hosts=hosts)
    results = [{"host": host, "status": its} for host, its in zip(hosts, statuses, strict=True)]
    monkeypatch.setattr(command_module, "query_job", lambda _job: answer)
    monkeypatch.setattr(command_module, "run_on_hosts", lambda *_: results)
    words = ["7", "--cpus", "2-3", "--json", "--config", str(config)]
    assert command.main(words, standalone_mode=False) == status


def test_a_job_on_one_other_host_is_moved_there(
    here: JobHost, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a login host, say; an element of an array goes by its number."""
    asked: list[tuple[tuple[str, ...], str]] = []

    def run_on_hosts(hosts: tuple[str, ...], words: list[str], _seen: Any) -> list[dict[str, Any]]:
        asked.append((hosts, words[0]))
        return [{"host": "n9", "status": 0}]

    def answer(text: str) -> JobAnswer:
        numbers = {"36_2": "38", "7": "7"}
        return JobAnswer(number=numbers[text], alias=text, hosts=("n9",))

    monkeypatch.setattr(command_module, "query_job", answer)
    monkeypatch.setattr(command_module, "run_on_hosts", run_on_hosts)
    answered = run("36_2", "--cpus", "2-3", "--config", str(config))
    assert (answered["job"], answered["alias"]) == ("38", "36_2")
    assert asked == [(("n9",), "38")]
    # Job 7 has its cgroups here, whatever Slurm calls this host.
    assert run("7", "--cpus", "2-3", "--config", str(config))["hosts"][0]["outcome"] == "complete"
    assert here.bound() == {200: "2", 201: "3"}


def test_on_this_host_an_element_is_found_without_slurm(here: JobHost, config: Path) -> None:
    text = "SLURM_JOB_ID=7\0SLURM_ARRAY_JOB_ID=7\0SLURM_ARRAY_TASK_ID=3\0"
    for pid in (200, 201):
        write_file(here.root, f"proc/{pid}/environ", f"{text}SLURM_PROCID={pid - 200}\0")
    words = ("--cpus", "2-3", "--this-host", "--config", str(config))
    with pytest.raises(UsageError, match=r"7 is an array; .* 7_3 \(job 7\)"):
        run("7", *words)
    assert here.is_untouched()
    assert run("7", *words, "--by-number", "--dry-run")["hosts"][0]["outcome"] == "planned"
    assert run("7_3", *words)["job"] == "7"
    assert here.bound() == {200: "2", 201: "3"}


def test_without_an_answer_from_slurm_the_command_acts_on_this_host(
    here: JobHost, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_job: str) -> JobAnswer:
        raise SchedhookError("Slurm cannot be asked")

    monkeypatch.setattr(command_module, "query_job", fails)
    (moved,) = run("7", "--cpus", "2-3", "--config", str(config))["hosts"]
    assert moved["outcome"] == "complete"
    with pytest.raises(SchedhookError, match="cannot be asked; run it with --this-host"):
        run("8", "--cpus", "2-3", "--config", str(config))
    assert here.bound() == {200: "2", 201: "3"}


@pytest.mark.parametrize("words", [(), ("--cpus", "2", "--release")])
def test_exactly_one_destination_is_required(words: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="give one of --cpus LIST, --to-nodes NODES, --release"):
        run("7", *words)


def test_the_line_says_which_policies_stay(capsys: pytest.CaptureFixture[str]) -> None:
    result = {
        "host": "n1",
        "outcome": "complete",
        "old": {"cpus": "0", "nodes": "0"},
        "new": {"cpus": "2", "nodes": "2"},
        "bytes_moved": 3 << 20,
        "left_by_reason": {},
        "policies_left": {"threads": 4, "bytes": 2 << 20},
    }
    command_module._print(result)
    assert capsys.readouterr().out.endswith("left 0.0 MiB, policies left: 4 threads and 2.0 MiB\n")


def test_what_a_host_says_does_not_reach_the_terminal_as_it_is(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hostile = "\x1b]0;owned\x07"
    result = {
        "host": f"n9{hostile}",
        "status": 1,
        "outcome": "failed",
        "failure": hostile,
        "notes": [hostile],
    }

    def run_on_hosts(_hosts: object, _words: object, seen: Any) -> list[dict[str, Any]]:
        seen(result)
        return [result]

    answer = JobAnswer(number="7", hosts=("n9",))
    monkeypatch.setattr(command_module, "query_job", lambda _job: answer)
    monkeypatch.setattr(command_module, "run_on_hosts", run_on_hosts)
    words = ["7", "--cpus", "2-3", "--config", str(config)]
    assert command.main(words, standalone_mode=False) == 1
    said = "".join(capsys.readouterr())
    assert said.count("\\x1b]0;owned") == 3
    assert "\x1b" not in said
