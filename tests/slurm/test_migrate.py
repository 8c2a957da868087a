"""job-migrate's core: processors, binding and memory of a real Slurm job."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from schedhook_plugins.schedulers.slurm import Slurm
from schedhook_plugins.schedulers.slurm_migrate import migrate

from schedhook.config import Config
from schedhook.model import Report
from schedhook.plugins import load_plugins
from schedhook.relocation import Request, relocate
from schedhook.sets import CpuSet, NodeSet
from tests.slurm import jobs
from tests.slurm.cluster import CGROUPS, Cluster


@pytest.fixture(scope="session")
def pipeline() -> object:
    config = Config()
    plugins = load_plugins(config)

    def carry_out(request: Request) -> Report:
        return relocate(request, config, plugins)

    return carry_out


def cpus_in(cluster: Cluster, job: int) -> dict[str, str]:
    """Every cpuset of the job that was written, by its cgroup."""
    top = cluster.job_cgroup(job)
    found = {}
    for path in sorted(top.rglob("cpuset.cpus")):
        text = path.read_text().strip()
        if text:
            found[str(path.parent.relative_to(CGROUPS))] = text
    return found


def bindings(pids: tuple[int, ...]) -> list[set[int]]:
    return [os.sched_getaffinity(pid) for pid in pids]


def test_a_job_goes_to_other_processors_task_by_task(cluster: Cluster, pipeline: object) -> None:
    running = jobs.start(cluster, threads=2)
    print([jobs.residency(pid) for pid in running.tasks])
    assert min(running.shares((0, 1))) >= 0.999
    before = cpus_in(cluster, running.job)
    assert set(before.values()) == {"0-1"}

    scheduler = Slurm(host="n1")
    assert [
        (task.name, str(task.placement.cpus)) for task in scheduler.tasks(str(running.job))
    ] == [
        ("batch", "0-1"),
        ("0.0", "0"),
        ("0.1", "1"),
    ]
    move = migrate(scheduler, str(running.job), CpuSet({2, 3}), pipeline)
    assert move.failure is None
    assert cpus_in(cluster, running.job) == dict.fromkeys(before, "2-3")
    for pid, cpu in zip(running.tasks, (2, 3), strict=True):
        threads = [int(path.name) for path in Path(f"/proc/{pid}/task").iterdir()]
        assert len(threads) == 3
        assert {frozenset(os.sched_getaffinity(tid)) for tid in threads} == {frozenset({cpu})}
    print([jobs.residency(pid) for pid in running.tasks], [r.to_dict() for r in move.reports])
    assert min(running.shares((2, 3))) >= 0.999
    assert move.new.nodes == NodeSet({2, 3})
    assert running.finish() == ["rank 0 right", "rank 1 right"]
