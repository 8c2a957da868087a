"""Jobs that start again, and jobs of several components: each completes with its right result."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

import pytest

from schedhook.cli.main import main
from tests.slurm import agents, jobs
from tests.slurm.cluster import Cluster, wait_until

ENOUGH = 0.999
RIGHT = ["rank 0 right", "rank 1 right"]


def move(cluster: Cluster, job: object, cpus: str, host: str, *more: str) -> int:
    """Run job-migrate and return its exit status; Slurm could then start no further step."""
    return agents.job_migrate(cluster, job, "--cpus", cpus, "--host", host, *more)[0]


def on_node(pid: int, node: int) -> bool:
    its = jobs.residency(pid)
    return its.get(node, 0) >= ENOUGH * sum(its.values()) > 0


def results(cluster: Cluster, job: int) -> list[str]:
    return sorted(re.findall(r"^rank .*$", cluster.output(job), re.MULTILINE))


def test_a_requeued_job_starts_where_slurm_puts_it(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    stop = jobs.new_stop(cluster)
    step = f"srun --cpu-bind=map_cpu:0,1 {jobs.program()} 60 {stop}.${{SLURM_RESTART_COUNT:-0}} 0"
    with agents.agent(cluster):
        job = cluster.submit(f"{step} && srun -n1 echo last", "-n2", "-w", "n1", "--requeue")
        jobs.ready(cluster, job, stop.with_name(f"{stop.name}.0"), tasks=2)
        assert move(cluster, job, "2-3", "n1") == 4
        cluster.command("scontrol", "requeue", str(job))
        wait_until(lambda: cluster.job_state(job) == "PENDING", 90, "the job to be requeued")
        wait_until(lambda: not cluster.job_cgroup(job).exists(), 90, "the end of its first run")
        # Slurm would wait for the life of a credential, two minutes.
        cluster.command("scontrol", "update", f"JobId={job}", "StartTime=now")
        again = stop.with_name(f"{stop.name}.1")
        second = jobs.ready(cluster, job, again, tasks=2)
        assert [os.sched_getaffinity(pid) for pid in second] == [{0}, {1}]
        assert all(map(on_node, second, (0, 1)))
        # Memory alone can be moved anywhere.
        words = ["relocate", "--job", str(job), "--map", "0:2,1:3", "--json"]
        assert not main(words, standalone_mode=False), capsys.readouterr()
        assert all(map(on_node, second, (2, 3)))
        again.touch()
        cluster.wait_for_state(job, "COMPLETED")
    assert results(cluster, job) == RIGHT
    assert cluster.output(job).split()[-1] == "last"


@pytest.fixture
def backfill(cluster: Cluster) -> Iterator[Cluster]:
    """The cluster with the scheduler that starts heterogeneous jobs, which is the only one."""
    cluster.restart_controller(SchedulerType="sched/backfill", SchedulerParameters="bf_interval=2")
    yield cluster
    cluster.cancel_all()
    cluster.restart_controller()


def test_a_component_is_moved_and_both_complete(backfill: Cluster) -> None:
    """The first is on n1 and stays, the second on n2."""
    cluster = backfill
    stop = jobs.new_stop(cluster)
    step = f"srun --het-group=0,1 {jobs.program()} 60 {stop} 0"
    job = cluster.submit(f"#SBATCH -n1\n#SBATCH hetjob\n#SBATCH -n1\n{step}")
    zero, one = jobs.ready(cluster, job, stop, tasks=2)
    before = os.sched_getaffinity(zero), os.sched_getaffinity(one)
    assert move(cluster, f"{job}+1", "3", "n2") == 4
    assert (os.sched_getaffinity(zero), os.sched_getaffinity(one)) == before
    assert move(cluster, f"{job}+1", "3", "n2", "--force") == 0  # it has no later step
    assert (os.sched_getaffinity(zero), os.sched_getaffinity(one)) == (before[0], {3})
    assert on_node(one, 3)
    stop.touch()
    cluster.wait_for_state(job, "COMPLETED")
    assert results(cluster, job) == RIGHT
