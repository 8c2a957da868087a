"""Jobs under Slurm on cgroups of version 1: none is lost, whatever is asked for."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm import agents, jobs
from tests.slurm.cluster import Cluster
from tests.slurm.jobs import Running

ENOUGH = 0.999


@pytest.fixture
def job(cluster: Cluster) -> Iterator[Running]:
    """A job of two tasks that later starts two more steps, one of them overlapping."""
    stop = jobs.new_stop(cluster)
    first = f"srun --cpu-bind=map_cpu:0,1 {jobs.program()} 60 {stop} 0"
    script = f"{first} &&\nsrun -n1 echo second &&\nsrun -n1 --overlap echo third"
    number = cluster.submit(script, "-n2", "-w", "n1")
    tasks = jobs.ready(cluster, number, stop, tasks=2)
    yield Running(cluster=cluster, job=number, tasks=tasks, stop=stop)


def test_the_cluster_uses_version_1(cluster: Cluster, job: Running) -> None:
    cgroups = Path(f"/proc/{job.tasks[0]}/cgroup").read_text()
    assert re.search(rf"^\d+:cpuset:/slurm.*/job_{job.job}/step_0", cgroups, re.MULTILINE), cgroups
    assert cluster.job_cgroup(job.job).is_dir()
    job.finish()


def test_job_migrate_refuses_and_later_steps_start(cluster: Cluster, job: Running) -> None:
    status, result = agents.job_migrate(cluster, job.job, "--cpus", "2-3", "--host", "n1")
    assert status == 4, result
    assert "Slurm can start no further step (srun)" in result["error"]
    assert [os.sched_getaffinity(pid) for pid in job.tasks] == [{0}, {1}]
    assert min(job.shares((0, 1))) >= ENOUGH
    assert_complete(cluster, job)


def test_memory_alone_is_moved_and_later_steps_start(cluster: Cluster, job: Running) -> None:
    status, result = agents.relocate(cluster, "--job", job.job, "--map", "0:2,1:3")
    assert status == 0, result
    assert min(job.shares((2, 3))) >= ENOUGH
    assert_complete(cluster, job)


def test_force_moves_the_step_that_runs(cluster: Cluster) -> None:
    """Its later steps would be lost, as the message says; this job has none."""
    running = jobs.start(cluster)
    words = ("--cpus", "2-3", "--host", "n1", "--force")
    status, result = agents.job_migrate(cluster, running.job, *words)
    (here,) = result["hosts"]
    assert (status, here["outcome"]) == (0, "complete"), result
    assert min(running.shares((2, 3))) >= ENOUGH
    assert running.finish() == ["rank 0 right", "rank 1 right"]


def assert_complete(cluster: Cluster, job: Running) -> None:
    """Its steps ended well, its memory is right, and no host was drained."""
    expected = ["rank 0 right", "rank 1 right"]
    assert job.finish() == expected, cluster.diagnosis(job.job)
    assert cluster.output(job.job).split()[-2:] == ["second", "third"]
