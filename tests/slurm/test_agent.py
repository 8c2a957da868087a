"""The agent beside a real Slurm: it sees what no hook tells."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from schedhook.journal import Journal
from tests.slurm import jobs
from tests.slurm.cluster import Cluster, wait_until

SOCKET = Path("/run/schedhook/agent.sock")
ENOUGH = 0.999


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
