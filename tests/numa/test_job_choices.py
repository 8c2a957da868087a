"""A job that has chosen SCHEDHOOK=off is left alone on the real kernel, beside one that has not.

Both have their tasks on the nodes 0 and 1, and whatever happens happens to both: when the other
job's memory has moved, that of the job that is off must not have.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from schedhook.hook import delivery
from schedhook.journal.journal import Journal
from tests.numa.agents import PATIENCE, recorded, running_agent
from tests.numa.jobs import Job
from tests.numa.slurm_jobs import slurm_job

pytestmark = pytest.mark.nodes(4)

MIB = 24
"""Of each task."""
OFF, OTHER = "4711", "4712"
SETTLE_SECONDS = 8.0
"""In which the agent looks at every job again, and a move of so little memory would be seen."""


@dataclass
class SlurmJob:
    number: str
    cgroup: Path
    tasks: list[Job]

    def __post_init__(self) -> None:
        self.sums = [task.checksum() for task in self.tasks]

    def is_on(self, *nodes: int) -> bool:
        return all(
            task.share_on(node) > 0.999 for task, node in zip(self.tasks, nodes, strict=True)
        )

    def give_cpus(self, cpus: str) -> None:
        (self.cgroup / "cpuset.cpus").write_text(cpus)

    def freeze(self, frozen: bool) -> None:
        (self.cgroup / "step_0/user/cgroup.freeze").write_text(str(int(frozen)))

    def is_intact(self) -> bool:
        return self.sums == [task.checksum() for task in self.tasks]


class Host:
    """Two jobs, and an agent that may be started."""

    def __init__(self, directory: Path, off: SlurmJob, other: SlurmJob) -> None:
        self.directory, self.off, self.other = directory, off, other
        self.jobs = (off, other)
        self.config = directory / "config.toml"

    def agent(self, config: str = "") -> Any:
        self.config.write_text(
            f'[log]\nlevel = "debug"\n[journal]\npath = "{self.directory}/state/journal.db"\n'
            f"[watch]\ntask_interval_s = 1.0\n{config}"
        )
        options = ["--socket", self.directory / "s", "--spool", self.directory / "spool"]
        return running_agent(self.directory / "log", "--config", self.config, *options)

    def log(self) -> str:
        return (self.directory / "log").read_text()[-4000:]

    def knows(self, job: str, count: int = 2) -> bool:
        path = self.directory / "state/journal.db"
        return path.exists() and len(recorded(self.history(job))) >= count

    def history(self, job: str) -> list[dict[str, Any]]:
        path = self.directory / "state/journal.db"
        with Journal.open(path, create=False) as journal:
            return journal.history(job)

    def wait(self, condition: Callable[[], Any]) -> None:
        limit = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < limit, self.log()
            time.sleep(0.1)

    def wait_until_known(self) -> None:
        self.wait(lambda: all(self.knows(job.number) for job in self.jobs))


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    with ExitStack() as stack:
        off = stack.enter_context(slurm_job(OFF, MIB, variables={"SCHEDHOOK": "off"}))
        other = stack.enter_context(slurm_job(OTHER, MIB))
        host = Host(tmp_path, SlurmJob(OFF, *off), SlurmJob(OTHER, *other))
        yield host
        assert all(job.is_intact() for job in host.jobs)


def test_its_memory_does_not_follow_until_a_command_names_it(host: Host, run: Any) -> None:
    with host.agent():
        host.wait_until_known()
        for job in host.jobs:
            job.give_cpus("2-3")
        host.wait(lambda: host.other.is_on(2, 3))
        time.sleep(SETTLE_SECONDS)
        assert host.off.is_on(0, 1)
        assert host.history(OFF)[0]["reports"] == []
    bind = ("relocate", "--config", host.config, "--home")
    for task, node in zip(host.off.tasks, (2, 3), strict=True):
        os.sched_setaffinity(task.pid, {node})
    status, answer = run(*bind, "--all")
    assert status == 0
    (left,) = [each for each in answer["jobs"] if each["job"] == OFF]
    assert "left alone, as the job chose (SCHEDHOOK=off)" in left["notes"][0]
    assert host.off.is_on(0, 1)
    status, report = run(*bind, "--job", OFF)
    assert (status, report["outcome"]) == (0, "complete"), report
    assert "this command overrides it" in report["notes"][0]
    assert host.off.is_on(2, 3)


def test_it_is_neither_parked_nor_brought_back(host: Host) -> None:
    with host.agent('[actions]\npark = "2-3"\n'):
        host.wait_until_known()
        time.sleep(3)  # until the events of the start are handled
        for job in host.jobs:
            job.freeze(True)
        host.wait(
            lambda: all(task.share_on(node) == 0 for task in host.other.tasks for node in (0, 1))
        )
        time.sleep(SETTLE_SECONDS)
        assert host.off.is_on(0, 1)
        for job in host.jobs:
            job.freeze(False)
        host.wait(lambda: host.other.is_on(0, 1))
        time.sleep(SETTLE_SECONDS)
        assert host.off.is_on(0, 1)
    run = host.history(OFF)[0]
    assert run["reports"] == []
    said = [event["summary"] for event in run["events"] if event["point"] == "suspended"]
    assert set(said) == {"0.0, 0.1: left where it is, as the job chose (SCHEDHOOK=off)"}


def test_its_memory_is_not_brought_home_when_another_job_ends(host: Host) -> None:
    """The jobs' memory was on other nodes already when the agent saw them first."""
    for job in host.jobs:
        job.give_cpus("2-3")
        for task, node in zip(job.tasks, (2, 3), strict=True):
            os.sched_setaffinity(task.pid, {node})
    with host.agent('[actions]\nrepatriate = "all"\nrepatriate_least_mb = 1\n'):
        with slurm_job("4713", 1):
            host.wait_until_known()
            host.wait(lambda: host.knows("4713"))
            assert all(job.is_on(0, 1) for job in host.jobs)
        host.wait(lambda: host.other.is_on(2, 3))
        time.sleep(SETTLE_SECONDS)
        assert host.off.is_on(0, 1)
        assert host.history(OFF)[0]["reports"] == []


def test_a_step_may_say_so_later(host: Host) -> None:
    """TaskProlog sends SCHEDHOOK of the step's environment; the job's first process has none."""
    with host.agent():
        host.wait_until_known()
        environ = {"SLURM_JOB_ID": OTHER, "SCHEDHOOK": "off", "SLURM_STEP_ID": "0"}
        hook = Path(delivery.__file__).with_name("run.py")
        command = [sys.executable, "-I", "-S", hook, "slurm", "task_prolog"]
        options = ["--socket", host.directory / "s", "--spool", host.directory / "spool"]
        subprocess.run([*command, *options], env=environ, check=True, timeout=PATIENCE)
        host.wait(
            lambda: any(
                event["point"] == "task-prolog" and event["summary"]
                for event in host.history(OTHER)[0]["events"]
            )
        )
        host.other.give_cpus("2-3")
        time.sleep(2 * SETTLE_SECONDS)
        assert host.other.is_on(0, 1)


def test_rules_for_a_user_and_the_words_that_jobs_may_choose(host: Host) -> None:
    """Root's jobs are off, and may choose to follow: one is off all the same, by its own choice."""
    rules = '[[actions.rules]]\nusers = ["root"]\nchoice = "off"\njob_choices = []\n'
    with host.agent(rules):
        host.wait_until_known()
        for job in host.jobs:
            job.give_cpus("2-3")
        time.sleep(2 * SETTLE_SECONDS)
        assert all(job.is_on(0, 1) for job in host.jobs)
