"""What is to be done for a job: the configuration, and the job's own word."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from schedhook.host import environ
from schedhook.jobs.choice import actions_for, configured_actions, record_choice
from schedhook.roles.scheduler import JobOrigin, Scheduler, Task
from schedhook.testing.hosts import write_process
from schedhook.values.actions import (
    ActionRule,
    ActionsSection,
    AnyNode,
    Choice,
    ChoiceFrom,
    JobFacts,
    SchedulerActions,
)
from schedhook.values.errors import NotAnsweringError
from schedhook.values.model import Placement
from schedhook.values.sets import CpuSet, NodeSet


class Jobs(Scheduler):
    """Job 1 has the processes 77 and 78 of a made-up host."""

    name = "slurm"

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.pids = (77, 78)
        self.its_origin = JobOrigin()
        for pid in self.pids:
            write_process(root, pid)
            self.say(pid, b"PATH=/bin\0")

    def say(self, pid: int, environment: bytes) -> None:
        (self.root / f"proc/{pid}/environ").write_bytes(environment)

    def tasks(self, _job: str) -> tuple[Task, ...]:
        here = Placement(cpus=CpuSet({0}), nodes=NodeSet({0}))
        return (Task(name="0", pids=self.pids, placement=here),)

    def origin(self, _job: str) -> JobOrigin:
        return self.its_origin

    def choice(self, record: bool = False, **section: Any) -> Choice | None:
        return actions_for(self, "1", ActionsSection(**section), record=record).choice


@pytest.fixture
def jobs(tmp_path: Path) -> Jobs:
    return Jobs(tmp_path)


def test_a_job_that_says_nothing_is_treated_as_configured(jobs: Jobs) -> None:
    section = ActionsSection(slurm=SchedulerActions(choice=Choice.GENTLE))
    assert actions_for(jobs, "1", section) == section.of(JobFacts(scheduler="slurm"))


@pytest.mark.parametrize("word", [*Choice])
def test_the_first_process_speaks_for_the_job(jobs: Jobs, word: Choice) -> None:
    jobs.say(77, b"A=b\0SCHEDHOOK=" + word.encode() + b"\0")
    jobs.say(78, b"SCHEDHOOK=other\0")
    assert jobs.choice() is word
    assert jobs.choice(job_choices=()) is None


def test_the_first_process_is_the_oldest_not_the_one_with_the_smallest_number(
    jobs: Jobs,
) -> None:
    write_process(jobs.root, 77, start_time=900)
    write_process(jobs.root, 78, start_time=800)
    jobs.say(77, b"SCHEDHOOK=off\0")
    jobs.say(78, b"SCHEDHOOK=gentle\0")
    assert jobs.choice() is Choice.GENTLE


@pytest.mark.parametrize("word", [b"", b"0", b"never", b"off\n; rm -rf /", b"\xff\xfe", b"o" * 99])
def test_what_is_no_word_of_ours_changes_nothing(jobs: Jobs, word: bytes) -> None:
    jobs.say(77, b"SCHEDHOOK=" + word + b"\0")
    assert jobs.choice(record=True) is None
    assert jobs.notes.get("1", "choice") == "none", "nothing else is kept"


def test_capitals_and_blanks_do_not_matter(jobs: Jobs) -> None:
    jobs.say(77, b"SCHEDHOOK= Off\0")
    assert jobs.choice() is Choice.OFF


def test_the_choice_stays_when_the_process_that_made_it_has_ended(jobs: Jobs) -> None:
    jobs.say(77, b"SCHEDHOOK=off\0")
    assert jobs.choice(record=True) is Choice.OFF
    jobs.pids = (78,)
    assert jobs.choice() is Choice.OFF


def test_a_process_that_says_nothing_is_asked_once_it_runs_its_program_and_not_again(
    jobs: Jobs,
) -> None:
    """Until execve its environment is the scheduler's; later each look would start a reader."""
    now = time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK")
    for pid in jobs.pids:
        write_process(jobs.root, pid, start_time=int(now))
    assert jobs.choice(record=True) is None
    jobs.say(77, b"SCHEDHOOK=off\0")
    assert jobs.choice() is Choice.OFF
    jobs.say(77, b"A=b\0")
    for pid in jobs.pids:
        write_process(jobs.root, pid, start_time=1000)
    assert jobs.choice(record=True) is None
    jobs.say(77, b"SCHEDHOOK=off\0")
    assert jobs.choice() is None


def test_nothing_is_recorded_unless_the_caller_wants_it(jobs: Jobs) -> None:
    jobs.say(77, b"SCHEDHOOK=off\0")
    assert jobs.choice() is Choice.OFF
    assert jobs.notes.get("1", "choice") is None


def test_a_later_step_may_choose_anew_and_only_by_a_word(jobs: Jobs) -> None:
    jobs.say(77, b"SCHEDHOOK=off\0")
    assert jobs.choice(record=True) is Choice.OFF
    for nothing in ("", "never", 7, None, ["off"]):
        record_choice(jobs, "1", nothing)
        assert jobs.choice() is Choice.OFF
    record_choice(jobs, "1", "gentle")
    assert jobs.choice() is Choice.GENTLE


def test_an_environment_that_lets_its_reader_wait_is_read_once(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wait(pid: int, *_: object) -> bytes:
        raise NotAnsweringError(f"process {pid} does not answer")

    with monkeypatch.context() as patch:
        patch.setattr(environ, "call_bounded", wait)
        assert jobs.choice(record=True) is None
    jobs.pids = (78,)
    jobs.say(78, b"SCHEDHOOK=off\0")
    assert jobs.choice(record=True) is None


def test_a_site_may_prefer_what_the_scheduler_says(jobs: Jobs) -> None:
    jobs.say(77, b"SCHEDHOOK=follow\0")
    assert jobs.choice(choice_from=ChoiceFrom.SCHEDULER) is None
    jobs.its_origin = JobOrigin(choice="off")
    assert jobs.choice(choice_from=ChoiceFrom.SCHEDULER) is Choice.OFF
    assert jobs.choice() is Choice.FOLLOW


def test_rules_ask_the_scheduler_and_the_kernel_never_the_environment(jobs: Jobs) -> None:
    jobs.say(77, b"SLURM_JOB_PARTITION=gpu\0SLURM_JOB_ACCOUNT=cfd\0SLURM_JOB_USER=alice\0")
    rules = tuple(
        ActionRule(park=AnyNode.ANY, **{key: (name,)})  # type: ignore[arg-type]
        for key, name in {"partitions": "gpu", "accounts": "cfd", "users": "alice"}.items()
    )
    section = ActionsSection(rules=rules)
    assert not configured_actions(jobs, "1", section).park
    jobs.its_origin = JobOrigin(queue="gpu")
    assert configured_actions(jobs, "1", section).park
    by_number = ActionsSection(rules=(ActionRule(park=AnyNode.ANY, users=("0",)),))
    assert configured_actions(jobs, "1", by_number).park, "processes of made-up hosts are root's"
