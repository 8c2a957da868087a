"""`--home` on the real kernel: off-node memory comes to the nodes of the processors that use it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from schedhook.host.topology import read_topology
from tests.numa.jobs import MIB, Job, cgroup, numa_stat
from tests.numa.slurm_jobs import slurm_job

pytestmark = pytest.mark.nodes(4)

SIZE = 96
"""MiB of a job."""
HOME = 2
OWN = MIB
"""Bytes of a program besides the memory that it fills: its stack, heap and tables."""


def bind(pid: int, node: int) -> None:
    """Bind a process to the processors of a node."""
    os.sched_setaffinity(pid, read_topology().cpus_of([node]))


@pytest.mark.short(1)
@pytest.mark.parametrize("kind", ["anon", "thp"])
def test_a_process_comes_home(run: Any, kind: str) -> None:
    with Job(kind, SIZE, 0) as job:
        before = job.checksum()
        job.say("touch 16 3")
        bind(job.pid, HOME)
        shown = run("show", "--pid", job.pid)[1]
        assert shown["bytes_off_node"] >= (SIZE + 16) * MIB
        _, plan = run("plan", "--pid", job.pid, "--home")
        assert plan["bytes_planned"] == pytest.approx(shown["bytes_off_node"], rel=0.01)
        status, report = run("relocate", "--pid", job.pid, "--home")
        assert (status, report["outcome"]) == (0, "complete"), report["notes"]
        assert report["bytes_moved"] == pytest.approx(plan["bytes_planned"], rel=0.01)
        assert job.share_on(HOME) == 1
        assert run("show", "--pid", job.pid)[1]["bytes_off_node"] < OWN
        assert job.checksum() == before
        assert run("relocate", "--pid", job.pid, "--home")[1]["bytes_moved"] < OWN


def test_a_cgroup_comes_home_as_the_kernel_counts_it(run: Any) -> None:
    with ExitStack() as stack:
        path = stack.enter_context(cgroup("schedhook-home"))
        jobs = [stack.enter_context(Job("anon", SIZE, node, cgroup=path)) for node in (0, 1, 3)]
        for job in jobs:
            bind(job.pid, HOME)
        away = numa_stat(path, "anon")
        assert sum(away.get(node, 0) for node in (0, 1, 3)) >= 3 * SIZE * MIB
        status, report = run("relocate", "--cgroup", "/schedhook-home", "--home")
        assert (status, report["outcome"]) == (0, "complete"), report["notes"]
        home = numa_stat(path, "anon")
        assert home[HOME] >= 3 * SIZE * MIB
        assert sum(home.values()) - home[HOME] < 3 * OWN
        gained = home[HOME] - away.get(HOME, 0)
        assert report["bytes_moved"] == pytest.approx(gained, rel=0.01)


def test_each_task_of_a_job_comes_to_its_own_node(run: Any) -> None:
    """The tasks' memory is on nodes 0 and 1; then each gets the other's processors."""
    with slurm_job("4711", SIZE) as (path, tasks):
        for task, node in zip(tasks, (1, 0), strict=True):
            bind(task.pid, node)
        sums = [task.checksum() for task in tasks]
        status, report = run("relocate", "--job", 4711, "--home")
        assert (status, report["outcome"], report["strategy"]) == (0, "complete", "home")
        assert [task.share_on(node) for task, node in zip(tasks, (1, 0), strict=True)] == [1, 1]
        assert report["bytes_moved"] == pytest.approx(2 * SIZE * MIB, rel=0.03)
        assert [task.checksum() for task in tasks] == sums
        assert path.exists()


def test_every_job_comes_home(run: Any) -> None:
    with slurm_job("4712", SIZE) as (_, tasks):
        for task in tasks:
            bind(task.pid, 1)
        _, answer = run("relocate", "--all", "--home")
        assert [(each["job"], each["outcome"]) for each in answer["jobs"]] == [("4712", "complete")]
        assert [task.share_on(1) for task in tasks] == [1, 1]


@pytest.fixture
def segment() -> Iterator[str]:
    path = Path("/dev/shm/schedhook-home")
    yield str(path)
    path.unlink(missing_ok=True)


def test_a_segment_between_two_nodes_stays_on_either(run: Any, segment: str) -> None:
    """Both map it: it is at home on both nodes, and comes from any other one."""
    with Job("shm", SIZE, 0, segment) as one, Job("shm", SIZE, 0, segment) as two:
        bind(one.pid, 0)
        bind(two.pid, 1)
        pids = ("--pid", one.pid, "--pid", two.pid)
        run("relocate", *pids, "--home")
        assert one.share_on(0) == 1
        bind(one.pid, 2)
        _, report = run("relocate", *pids, "--home")
        assert SIZE * MIB <= report["bytes_moved"] <= SIZE * MIB + 4 * OWN
        assert one.residency().keys() == two.residency().keys()
        assert one.residency().keys() <= {1, 2}


def test_from_all_nodes_but_one(run: Any) -> None:
    with Job("anon", SIZE, 0) as job:
        job.say("touch 16 3")
        status, report = run("relocate", "--pid", job.pid, "--from", "!0,2", "--to", 2)
        assert (status, report["outcome"]) == (0, "complete")
        assert 16 * MIB <= report["bytes_moved"] <= 16 * MIB + OWN
        assert job.share_on(0) == 1
