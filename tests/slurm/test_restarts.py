"""Jobs that start again, and jobs of several components: each completes with its right result.

tests/slurm_v1 runs these on cgroups of version 1, where job-migrate refuses.
"""

from __future__ import annotations

import os
import re

import pytest

from tests.slurm import agents, jobs
from tests.slurm.cluster import Cluster, wait_until

ENOUGH = 0.999
RIGHT = ["rank 0 right", "rank 1 right"]


def move(cluster: Cluster, job: object, cpus: str, host: str, *more: str) -> None:
    """Move the job; where Slurm could then start no further step it must be refused."""
    status, result = agents.job_migrate(cluster, job, "--cpus", cpus, "--host", host, *more)
    refused = cluster.version_1 is not None and "--force" not in more
    assert status == (4 if refused else 0), result


def on_node(pid: int, node: int) -> bool:
    its = jobs.residency(pid)
    return its.get(node, 0) >= ENOUGH * sum(its.values()) > 0


def results(cluster: Cluster, job: int) -> list[str]:
    return sorted(re.findall(r"^rank .*$", cluster.output(job), re.MULTILINE))


@pytest.mark.usefixtures("hooks")
def test_a_requeued_job_starts_where_slurm_puts_it(cluster: Cluster) -> None:
    """Its override was for the run that has ended; the agent must not apply it to the new one.

    The epilog tells of the end. Without hooks a job ends that has had no cgroup for ten seconds.
    """
    stop = jobs.new_stop(cluster)
    step = f"srun --cpu-bind=map_cpu:0,1 {jobs.program()} 60 {stop}.${{SLURM_RESTART_COUNT:-0}} 0"
    with agents.agent(cluster):
        job = cluster.submit(f"{step} && srun -n1 echo last", "-n2", "-w", "n1", "--requeue")
        first = jobs.ready(cluster, job, stop.with_name(f"{stop.name}.0"), tasks=2)
        move(cluster, job, "2-3", "n1")
        if cluster.version_1 is None:
            assert [os.sched_getaffinity(pid) for pid in first] == [{2}, {3}]
        cluster.command("scontrol", "requeue", str(job))
        wait_until(lambda: cluster.job_state(job) == "PENDING", 90, "the job to be requeued")
        wait_until(lambda: not cluster.job_cgroup(job).exists(), 90, "the end of its first run")
        wait_until(
            lambda: agents.override_of(job) is None, 60, "the override to end", cluster.diagnosis
        )
        # Slurm would wait for the life of a credential, two minutes.
        cluster.command("scontrol", "update", f"JobId={job}", "StartTime=now")
        again = stop.with_name(f"{stop.name}.1")
        second = jobs.ready(cluster, job, again, tasks=2)
        assert [os.sched_getaffinity(pid) for pid in second] == [{0}, {1}]
        assert all(map(on_node, second, (0, 1)))
        # Memory alone can be moved anywhere.
        status, result = agents.relocate(cluster, "--job", job, "--map", "0:2,1:3")
        assert status == 0, result
        assert all(map(on_node, second, (2, 3)))
        again.touch()
        cluster.wait_for_state(job, "COMPLETED")
    assert results(cluster, job) == RIGHT
    assert cluster.output(job).split()[-1] == "last"


def test_a_component_is_moved_and_both_complete(backfill: Cluster) -> None:
    """The first is on n1 and stays, the second on n2."""
    cluster = backfill
    stop = jobs.new_stop(cluster)
    step = f"srun --het-group=0,1 {jobs.program()} 60 {stop} 0"
    job = cluster.submit(f"#SBATCH -n1\n#SBATCH hetjob\n#SBATCH -n1\n{step}")
    zero, one = jobs.ready(cluster, job, stop, tasks=2)
    before = os.sched_getaffinity(zero), os.sched_getaffinity(one)
    move(cluster, f"{job}+1", "3", "n2")
    if cluster.version_1 is not None:
        assert (os.sched_getaffinity(zero), os.sched_getaffinity(one)) == before
        move(cluster, f"{job}+1", "3", "n2", "--force")  # it has no later step
    assert (os.sched_getaffinity(zero), os.sched_getaffinity(one)) == (before[0], {3})
    assert on_node(one, 3)
    stop.touch()
    cluster.wait_for_state(job, "COMPLETED")
    assert results(cluster, job) == RIGHT
