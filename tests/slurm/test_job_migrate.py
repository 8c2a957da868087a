"""The administrator's command on a real job, and what the agent makes of its wish."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
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
