"""The agent with a real Slurm: it sees what no hook reports, and its failures do not harm Slurm."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from schedhook.journal.file import journal_path
from schedhook.journal.journal import Journal
from schedhook.values.config import Config
from tests.slurm import jobs
from tests.slurm.agents import AGENT, agent
from tests.slurm.cluster import Cluster, wait_until

ENOUGH = 0.999
BURST = 20


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_memory_follows_a_cpuset_that_another_process_wrote(cluster: Cluster) -> None:
    """Only the watcher sees the change; the kernel drops the tasks' bindings."""
    with agent(cluster):
        running = jobs.start(cluster)
        with Journal.open(journal_path(Config())) as journal:
            wait_until(
                lambda: len(journal.placements.known_tasks("slurm", str(running.job))) >= 2,
                60,
                "the agent to know the tasks",
            )
        top = cluster.job_cgroup(running.job)
        levels = [path for path in sorted(top.rglob("cpuset.cpus")) if path.read_text().strip()]
        for text in ("0-3", "2-3"):
            for path in levels if text == "0-3" else reversed(levels):
                path.write_text(text)
        wait_until(lambda: min(running.shares((2, 3))) >= ENOUGH, 120, "the memory to follow")
        assert [os.sched_getaffinity(pid) for pid in running.tasks] == [{2}, {3}]
        assert running.finish() == ["rank 0 right", "rank 1 right"]


def test_a_suspended_jobs_memory_is_parked_and_comes_back(cluster: Cluster) -> None:
    with agent(cluster, '[actions]\npark = "2-3"\n'):
        running = jobs.start(cluster)
        with Journal.open(journal_path(Config())) as journal:
            wait_until(
                lambda: len(journal.placements.known_tasks("slurm", str(running.job))) >= 2,
                60,
                "the agent to know the tasks",
            )
        cluster.command("scontrol", "suspend", str(running.job))
        wait_until(lambda: {state(pid) for pid in running.tasks} == {"T"}, 30, "the tasks to stop")
        wait_until(
            lambda: all(
                its.get(2, 0) + its.get(3, 0) >= ENOUGH * sum(its.values())
                for its in map(jobs.residency, running.tasks)
            ),
            120,
            "the memory to be parked",
        )
        cluster.command("scontrol", "resume", str(running.job))
        wait_until(lambda: min(running.shares((0, 1))) >= ENOUGH, 120, "the memory to come back")
        assert running.finish() == ["rank 0 right", "rank 1 right"]


@pytest.mark.usefixtures("hooks")
def test_every_job_of_a_burst_is_in_the_journal_once_and_closed(cluster: Cluster) -> None:
    with agent(cluster), Journal.open(journal_path(Config())) as journal:
        array = cluster.submit("true", "-n1", "-w", "n1", f"--array=1-{BURST}")
        submitted = range(array, array + BURST)

        def ended(job: int) -> bool:
            run = journal.runs.latest("slurm", str(job))
            return run is not None and run.ended is not None

        wait_until(lambda: all(map(ended, submitted)), 200, "the journal to have all jobs")
        runs = [int(entry["job"]) for entry in journal.history()]
        assert sorted(job for job in runs if job in submitted) == list(submitted)
        assert not {run.job for run in journal.runs.list_open()} & set(map(str, submitted))

        def states() -> dict[int, str]:
            text = cluster.command("scontrol", "-o", "show", "job", str(array))
            found = re.findall(r"^JobId=(\d+).* JobState=(\S+)", text, re.M)
            return {int(job): state for job, state in found}

        # The last one may still be COMPLETING: the journal hears of the end from its epilog.
        completed = dict.fromkeys(submitted, "COMPLETED")
        wait_until(lambda: states() == completed, 60, "Slurm to have all jobs", cluster.diagnosis)


@contextmanager
def killed(cluster: Cluster) -> Iterator[None]:
    with agent(cluster) as running:
        running.kill()
        running.wait(30)
        yield


@contextmanager
def stopped(cluster: Cluster) -> Iterator[None]:
    with agent(cluster) as running:
        running.send_signal(signal.SIGSTOP)
        yield
        running.send_signal(signal.SIGCONT)


@contextmanager
def journal_on(options: str) -> Iterator[Path]:
    """Mount a file system for the journal alone."""
    place = journal_path(Config()).parent
    place.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


@contextmanager
def read_only(cluster: Cluster) -> Iterator[None]:
    with journal_on("ro"), agent(cluster):
        yield


@contextmanager
def disk_full(cluster: Cluster) -> Iterator[None]:
    with journal_on("size=1m") as place, agent(cluster):
        with pytest.raises(OSError, match="No space"), (place / "filler").open("wb", 0) as file:
            while True:
                file.write(bytes(4096))
        yield


@contextmanager
def broken_configuration(cluster: Cluster) -> Iterator[None]:
    """Write a configuration with which no agent starts."""
    broken = Path("/etc/schedhook/config.toml")
    broken.parent.mkdir(exist_ok=True)
    broken.write_text("[relocation\nstrategy = 7\n")
    try:
        done = subprocess.run(AGENT, env=cluster.environment, check=False, timeout=60)
        assert done.returncode == 2
        yield
    finally:
        broken.unlink()


@pytest.mark.usefixtures("hooks")
@pytest.mark.parametrize("failure", [killed, stopped, read_only, disk_full, broken_configuration])
def test_a_failing_agent_does_not_harm_slurm(
    cluster: Cluster, failure: Callable[[Cluster], AbstractContextManager[None]]
) -> None:
    """The fixture `cluster` fails the test if a host was drained."""
    with failure(cluster):
        assert cluster.run("srun echo $((6 * 7))", "-n1", "-w", "n1").split() == ["42"]
        wait_until(lambda: cluster.host_state("n1") == "IDLE", 60, "the epilog", cluster.diagnosis)
