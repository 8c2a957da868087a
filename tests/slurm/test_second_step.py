"""A move lasts: Slurm writes the old cpuset for each new step, and the agent the override's."""

from __future__ import annotations

import os

from tests.slurm import agents, jobs
from tests.slurm.cluster import Cluster, wait_until

ENOUGH = 0.999


def test_a_second_step_starts_where_the_job_was_moved(cluster: Cluster) -> None:
    first, second = jobs.new_stop(cluster), jobs.new_stop(cluster)
    go = cluster.work / f"{first.name}.go"
    task = f"srun --overlap --cpu-bind=map_cpu:0,1 {jobs.program()} 40"
    script = f"{task} {first} 0 & until [ -e {go} ]; do sleep 0.2; done; {task} {second} 0; wait"
    with agents.agent(cluster) as agent:
        job = cluster.submit(script, "-n2", "-w", "n1")
        one = jobs.ready(cluster, job, first, tasks=2)
        status, result = agents.job_migrate(cluster, job, "--cpus", "2-3", "--host", "n1")
        assert status == 0, result
        go.touch()
        two = jobs.ready(cluster, job, second, tasks=2)

        def places() -> list[tuple[set[int], float]]:
            return [
                (os.sched_getaffinity(pid), its.get(cpu, 0) / sum(its.values()))
                for pids in (one, two)
                for pid, cpu in zip(pids, (2, 3), strict=True)
                if (its := jobs.residency(pid))
            ]

        def in_place() -> bool:
            return [cpus for cpus, _ in places()] == [{2}, {3}] * 2 and all(
                share >= ENOUGH for _, share in places()
            )

        wait_until(
            in_place,
            120,
            "both steps to be on nodes 2 and 3",
            lambda: f"{places()}\n{cluster.diagnosis(job)}",
        )
        assert agent.poll() is None
        first.touch()
        second.touch()
        cluster.wait_for_state(job, "COMPLETED")
