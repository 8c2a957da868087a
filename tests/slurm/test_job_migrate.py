"""The administrator's command on a real job, and what the agent makes of its wish."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from schedhook.journal import Journal
from tests.slurm import jobs
from tests.slurm.cluster import Cluster, wait_until

Answer = tuple[int, dict]
ENOUGH = 0.999


@pytest.fixture
def job_migrate(cluster: Cluster) -> Callable[..., Answer]:
    """Run the command as root on host n1."""

    def run(*arguments: object) -> Answer:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "schedhook_plugins.schedulers.slurm_command"]
            + [str(each) for each in arguments]
            + ["--host", "n1", "--json"],
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
            env=cluster.environment,
        )
        assert "Traceback" not in done.stderr
        answer = json.loads(done.stdout) if done.stdout else {"error": done.stderr}
        print(json.dumps(answer), done.stderr)
        return done.returncode, answer["hosts"][0] if "hosts" in answer else answer

    return run


@pytest.fixture
def agent(cluster: Cluster) -> Iterator[subprocess.Popen[bytes]]:
    """The agent as its service runs it."""
    agent = subprocess.Popen(
        [sys.executable, "-P", "-m", "schedhook.cli.main", "agent"], env=cluster.environment
    )
    wait_until(lambda: Path("/run/schedhook/agent.sock").exists(), 60, "the agent's socket")
    yield agent
    agent.terminate()
    assert agent.wait(30) == 0


def test_a_job_is_moved_and_its_wish_kept(
    cluster: Cluster, job_migrate: Callable[..., Answer]
) -> None:
    running = jobs.start(cluster)
    status, told = job_migrate(running.job, "--cpus", "2-3")
    assert (status, told["outcome"]) == (0, "complete"), told
    assert (told["old"]["cpus"], told["new"]["cpus"]) == ("0-1", "2-3")
    assert min(running.shares((2, 3))) >= ENOUGH
    assert [os.sched_getaffinity(pid) for pid in running.tasks] == [{2}, {3}]
    with Journal.open() as journal:
        wish = journal.wish("slurm", str(running.job))
        assert wish is not None
        assert str(wish.placement.cpus) == "2-3"
        status, told = job_migrate(running.job, "--release")
        assert status == 0
        assert journal.wish("slurm", str(running.job)) is None
    assert running.finish() == ["rank 0 right", "rank 1 right"]


def test_processors_are_chosen_from_nodes(
    cluster: Cluster, job_migrate: Callable[..., Answer]
) -> None:
    running = jobs.start(cluster)
    status, told = job_migrate(running.job, "--to-nodes", "2-3")
    assert (status, told["new"]["cpus"]) == (0, "2-3"), told
    assert min(running.shares((2, 3))) >= ENOUGH


def test_no_room_is_refused_and_nothing_changes(
    cluster: Cluster, job_migrate: Callable[..., Answer]
) -> None:
    running = jobs.start(cluster)
    hog = subprocess.Popen(
        ["numactl", "--membind=3", sys.executable, "-c",
         "import time; x = bytearray(b'x') * (880 << 20); time.sleep(600)"]
    )  # fmt: skip
    try:
        free = Path("/sys/devices/system/node/node3/meminfo")
        wait_until(
            lambda: int(free.read_text().partition("MemFree:")[2].split()[0]) < 130 << 10,
            120,
            "node 3 to be full",
        )
        status, told = job_migrate(running.job, "--cpus", "2-3")
    finally:
        hog.kill()
        hog.wait()
    assert (status, told["outcome"]) == (4, "refused"), told
    assert "room" in told["failure"]
    assert min(running.shares((0, 1))) >= ENOUGH
    assert [os.sched_getaffinity(pid) for pid in running.tasks] == [{0}, {1}]
    assert running.finish() == ["rank 0 right", "rank 1 right"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("999999", "--cpus", "2"), "999999"),
        (("1;reboot", "--cpus", "2"), "not the number"),
        (("1",), "--cpus"),
    ],
)
def test_wrong_usage_is_one_line(
    job_migrate: Callable[..., Answer], arguments: tuple[str, ...], words: str
) -> None:
    status, told = job_migrate(*arguments)
    assert status == 2
    assert words in told["error"]
    assert told["error"].count("\n") == 1


def test_a_second_step_starts_where_the_job_was_moved(
    cluster: Cluster, job_migrate: Callable[..., Answer], agent: subprocess.Popen[bytes]
) -> None:
    """Slurm writes the old processors with each step; the agent puts the wish back."""
    first, second = jobs.new_stop(cluster), jobs.new_stop(cluster)
    go = cluster.work / f"{first.name}.go"
    task = f"srun --overlap --cpu-bind=map_cpu:0,1 {jobs.program()} 40"
    script = f"{task} {first} 0 & until [ -e {go} ]; do sleep 0.2; done; {task} {second} 0; wait"
    job = cluster.submit(script, "-n2", "-w", "n1")
    one = jobs.ready(cluster, job, first, tasks=2)
    status, told = job_migrate(job, "--cpus", "2-3")
    assert status == 0, told
    go.touch()
    two = jobs.ready(cluster, job, second, tasks=2)

    def in_place() -> bool:
        return all(
            os.sched_getaffinity(pid) == {cpu}
            and jobs.residency(pid).get(cpu, 0) >= ENOUGH * sum(jobs.residency(pid).values())
            for pids in (one, two)
            for pid, cpu in zip(pids, (2, 3), strict=True)
        )

    wait_until(in_place, 120, "both steps to be on nodes 2 and 3")
    assert agent.poll() is None
    first.touch()
    second.touch()
    cluster.wait_for_state(job, "COMPLETED")
