"""Looks at jobs by their cgroups' figures, and the one that is dealt with."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from schedhook.agent.keep_local.glance import JobGlances
from schedhook.agent.keep_local.looks import LocalLooks
from schedhook.agent.keeper.keeper import Keeper, Rules
from schedhook.agent.records import Records
from schedhook.agent.watched_job import WatchedJob
from schedhook.host.topology import read_topology
from schedhook.journal.journal import Journal
from schedhook.roles.scheduler import Scheduler, Task
from schedhook.testing.hosts import (
    FakeNode,
    write_cgroup,
    write_cgroup_mounts,
    write_host,
    write_process,
)
from schedhook.values.config import KeepLocalSection
from schedhook.values.model import Event, Placement
from schedhook.values.sets import CpuSet, NodeSet
from tests.unit.agentkit import with_actions

MIB = 1 << 20
CONFIG = replace(with_actions(keep_local=True), keep_local=KeepLocalSection(interval_s=20))


def figures(*mib: int) -> str:
    sizes = " ".join(f"N{node}={size * MIB}" for node, size in enumerate(mib))
    return f"anon {sizes}\nshmem N0=0 N1=0\nfile_mapped N0=0 N1=0\n"


class Jobs(Scheduler):
    """Jobs 1, 2, … with a task on node 0, or two tasks on nodes 0 and 1."""

    name = "fake"

    def __init__(self, root: Path, count: int = 1, tasks: int = 1) -> None:
        super().__init__(root)
        self.count, self.tasks_each = count, tasks
        write_cgroup_mounts(root)
        write_host(root, [FakeNode(number=n, cpus=str(n)) for n in range(2)])
        for job in self.jobs():
            self.put(job, 100, 0)

    def jobs(self) -> tuple[str, ...]:
        return tuple(str(number) for number in range(1, self.count + 1))

    def cgroups(self, job: str) -> tuple[Path, ...]:
        return (self.root / "sys/fs/cgroup" / f"job_{job}",)

    def tasks(self, job: str) -> tuple[Task, ...]:
        return tuple(
            Task(
                name=str(node),
                pids=(10 * int(job) + node,),
                placement=Placement(cpus=CpuSet({node}), nodes=NodeSet({node})),
            )
            for node in range(self.tasks_each)
        )

    def put(self, job: str, *mib: int, leaf: str = "") -> None:
        """Write a cgroup's figures."""
        path = f"job_{job}{leaf}"
        files = {"memory.numa_stat": figures(*mib), "cgroup.events": "populated 1\n"}
        write_cgroup(self.root, path, files=files)

    def watched(self, job: str) -> WatchedJob:
        watched = WatchedJob(self, job, CONFIG.watch, self.root)
        watched.tasks = self.tasks(job)
        return watched

    def glances(self) -> JobGlances:
        return JobGlances(self, "1", self.tasks("1"), read_topology(self.root), self.root)


class Host:
    """Some jobs, and looks at them every second."""

    def __init__(self, jobs: Jobs) -> None:
        self.emitted: list[Event] = []
        self.keeper = Keeper(Rules())
        self.looks = LocalLooks(
            self.keeper, CONFIG, Records(Journal.in_memory()), self.emitted.append, jobs.root
        )
        self.watched = [jobs.watched(job) for job in jobs.jobs()]
        self.now = 100.0

    def pass_time(self, seconds: int) -> list[str]:
        """Return the jobs that were picked in this time."""
        before = len(self.emitted)
        for _ in range(seconds):
            self.now += 1
            self.looks.tick(self.now, self.watched)
        return [event.job for event in self.emitted[before:]]


def test_a_job_is_picked_within_half_a_minute(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path)
    host = Host(jobs)
    assert host.pass_time(60) == []
    jobs.put("1", 50, 50)
    assert host.pass_time(35) == ["1"]
    assert host.emitted[0].data == {"seen_by": "agent", "keep_local": True}
    host.looks.close()


def test_files_stay_open_while_the_tasks_are_the_same(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path)
    host = Host(jobs)
    host.pass_time(30)
    before = dict(host.looks._open)
    host.watched[0].tasks = jobs.tasks("1")  # the watcher reads them anew now and then
    host.pass_time(30)
    assert host.looks._open == before
    jobs.tasks_each = 2
    host.watched[0].tasks = jobs.tasks("1")
    host.pass_time(30)
    assert host.looks._open != before
    host.looks.close()


def test_one_job_at_a_time_and_the_worst_first(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path, count=3)
    host = Host(jobs)
    host.pass_time(30)
    for job, off in (("1", 20), ("2", 90), ("3", 40)):
        jobs.put(job, 50, off)
    # The first one to be seen is picked, and nothing else while that is dealt with.
    (first,) = host.pass_time(60)
    jobs.put(first, 50, 0)
    host.looks.finished(Event(scheduler="fake", point="look", job=first, data={"keep_local": 1}))
    (second,) = host.pass_time(60)
    assert second == ("2" if first != "2" else "3")
    host.looks.close()


def test_a_job_that_keeps_its_reader_does_not_keep_the_others(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path, count=2)
    jobs.put("1", 50, 90)
    jobs.put("2", 50, 20)
    host = Host(jobs)
    (first,) = host.pass_time(60)
    host.now += 4 * 3600
    assert host.pass_time(30) == ["2" if first == "1" else "1"]
    host.looks.close()


def test_suspended_jobs_and_jobs_without_keep_local_are_not_looked_at(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path)
    jobs.put("1", 50, 50)
    host = Host(jobs)
    host.watched[0].suspended = True
    assert host.pass_time(60) == []
    host.watched[0].suspended = False
    host.looks._config = with_actions(keep_local=False)
    assert host.pass_time(60) == []
    host.looks.close()


def test_tasks_on_several_nodes_are_seen_by_their_own_cgroups(tmp_path: Path) -> None:
    """Each one's memory is on the other's node: the job's own figures look well."""
    jobs = Jobs(tmp_path, tasks=2)
    for task, mib in ((0, (0, 50)), (1, (50, 0))):
        jobs.put("1", *mib, leaf=f"/task_{task}")
        write_process(tmp_path, 10 + task, cgroup=f"0::/job_1/task_{task}\n")
    jobs.put("1", 50, 50)
    glances = jobs.glances()
    glance = glances.read()
    assert (glance.off_node, glance.local, glance.complete) == (100 * MIB, 0, True)
    glances.close()


@pytest.mark.parametrize("shared", [True, False])
def test_tasks_in_one_cgroup_are_not_told_apart(tmp_path: Path, shared: bool) -> None:
    jobs = Jobs(tmp_path, tasks=2)
    for task in range(2):
        write_process(tmp_path, 10 + task, cgroup="0::/job_1\n" if shared else "0::/\n")
    jobs.put("1", 50, 50)
    glances = jobs.glances()
    assert not glances.read().complete
    glances.close()


def test_on_a_host_with_one_node_no_memory_is_off_node(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path)
    write_host(tmp_path, [FakeNode(number=0, cpus="0-1")])
    for node in (tmp_path / "sys/devices/system/node").glob("node1*"):
        shutil.rmtree(node)
    (tmp_path / "sys/fs/cgroup/job_1/memory.numa_stat").unlink()
    glances = jobs.glances()
    assert glances.read().complete
    glances.close()


def test_a_job_without_figures_is_not_seen_whole(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path)
    (tmp_path / "sys/fs/cgroup/job_1/memory.numa_stat").unlink()
    glances = jobs.glances()
    assert glances.read().complete is False
    glances.close()
