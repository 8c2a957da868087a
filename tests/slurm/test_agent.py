"""The agent beside a real Slurm: it sees what no hook tells, and its troubles are not Slurm's."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from schedhook.journal import Journal, default_path
from tests.slurm import jobs
from tests.slurm.cluster import Cluster, wait_until

PROJECT = Path(__file__).parents[2]
SOCKET = Path("/run/schedhook/agent.sock")
ENOUGH = 0.999
BURST = 50


@contextmanager
def agent(cluster: Cluster, config: str = "") -> Iterator[subprocess.Popen[bytes]]:
    """The agent as its service runs it, with this configuration."""
    file = cluster.directory / "schedhook.toml"
    file.write_text(config)
    SOCKET.unlink(missing_ok=True)
    running = subprocess.Popen(
        [sys.executable, "-P", "-m", "schedhook.cli.main", "agent"],
        env={**cluster.environment, "SCHEDHOOK_CONFIG": str(file)},
    )
    try:
        wait_until(SOCKET.exists, 120, "the agent's socket")
        yield running
    finally:
        running.terminate()
        running.wait(60)


@pytest.fixture
def hooks(cluster: Cluster) -> Iterator[Path]:
    """The hooks as `install` makes them, in slurm.conf; out of it again afterwards."""
    directory = cluster.directory / "agent-hooks"
    command = [sys.executable, PROJECT / "contrib/slurm/install", "--directory", directory]
    subprocess.run([*command, "--seconds", "4"], check=True, timeout=60, stdout=subprocess.DEVNULL)
    cluster.reconfigure(
        Prolog=f"{directory}/prolog",
        Epilog=f"{directory}/epilog",
        TaskProlog=f"{directory}/task_prolog",
    )
    yield directory
    cluster.cancel_all()
    cluster.reconfigure()
    shutil.rmtree(directory)


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_memory_follows_a_cpuset_that_somebody_else_rewrote(cluster: Cluster) -> None:
    """Only the watcher sees it; the kernel takes the tasks' own binding away."""
    with agent(cluster):
        running = jobs.start(cluster)
        with Journal.open() as journal:
            wait_until(
                lambda: len(journal.placements("slurm", str(running.job))) >= 2,
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


def test_suspended_memory_is_parked_and_comes_back(cluster: Cluster) -> None:
    with agent(cluster, '[actions]\npark = "2-3"\n'):
        running = jobs.start(cluster)
        with Journal.open() as journal:
            wait_until(
                lambda: len(journal.placements("slurm", str(running.job))) >= 2,
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
    with agent(cluster):
        submitted = [cluster.submit("true", "-n1", "-w", "n1") for _ in range(BURST)]
        with Journal.open() as journal:

            def ended(job: int) -> bool:
                run = journal.run("slurm", str(job))
                return run is not None and run.ended is not None

            wait_until(lambda: all(map(ended, submitted)), 400, "the journal to have all jobs")
            runs = [int(entry["job"]) for entry in journal.history()]
            assert sorted(job for job in runs if job in submitted) == submitted
            assert not {run.job for run in journal.open_runs()} & set(map(str, submitted))
        assert {cluster.job_state(job) for job in submitted} == {"COMPLETED"}


def kill_the_agent(running: subprocess.Popen[bytes]) -> None:
    running.send_signal(signal.SIGKILL)
    running.wait(30)


def stop_the_agent(running: subprocess.Popen[bytes]) -> None:
    running.send_signal(signal.SIGSTOP)


def make_the_journal_unwritable(_running: subprocess.Popen[bytes]) -> None:
    subprocess.run(
        ["mount", "--bind", "-o", "ro", default_path().parent, default_path().parent], check=True
    )
    subprocess.run(["mount", "-o", "remount,bind,ro", default_path().parent], check=True)


@pytest.mark.parametrize("trouble", [kill_the_agent, stop_the_agent, make_the_journal_unwritable])
def test_trouble_with_the_agent_is_not_slurms(
    cluster: Cluster, hooks: Path, trouble: Callable[[subprocess.Popen[bytes]], None]
) -> None:
    assert hooks.exists()
    with agent(cluster) as running:
        trouble(running)
        try:
            assert cluster.run("srun echo $((6 * 7))", "-n1", "-w", "n1").split() == ["42"]
            wait_until(lambda: cluster.host_state("n1") == "IDLE", 60, "the epilog")
            assert not cluster.is_drained("n1")
        finally:
            subprocess.run(["umount", "-q", default_path().parent], check=False)
            if running.poll() is None:
                running.send_signal(signal.SIGCONT)


@pytest.mark.usefixtures("hooks")
def test_a_broken_configuration_is_not_slurms(cluster: Cluster) -> None:
    broken = Path("/etc/schedhook/config.toml")
    broken.parent.mkdir(exist_ok=True)
    broken.write_text("[relocation\nstrategy = 7\n")
    try:
        assert cluster.run("srun echo $((6 * 7))", "-n1", "-w", "n1").split() == ["42"]
        wait_until(lambda: cluster.host_state("n1") == "IDLE", 60, "the epilog")
    finally:
        broken.unlink()
