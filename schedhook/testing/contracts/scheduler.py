"""What every adapter for a batch scheduler must do, as tests.

    class TestFlux(SchedulerContract):
        plugin = my_package.plugin
        name = "flux"

        def write_job(self, root: Path, job: FakeJob) -> None:
            cgroup = f"flux/{job.id}"
            write_cgroup(root, cgroup, pids=job.pids, cpus=job.cpus, nodes=job.nodes)
            job.write_processes(root, cgroup=f"/{cgroup}")

        def hook_calls(self, job: str) -> Sequence[HookCall]:
            return [HookCall(point="prolog", kind=EventKind.JOB_STARTED, environ={"JOB": job})]

A contract without `write_job` or `hook_calls` fails: only the author knows what a host with a job
of the scheduler looks like.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import pytest

from schedhook.roles.request import Request
from schedhook.roles.scheduler import (
    EventKind,
    JobDescription,
    Scheduler,
    Task,
    check_job,
)
from schedhook.testing.contracts.plugin import PluginContract
from schedhook.testing.hosts import FakeNode, write_cgroup_mounts, write_host, write_process
from schedhook.values.errors import UsageError
from schedhook.values.model import Event
from schedhook.values.sets import CpuSet, NodeSet


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeJob:
    """A running job that `SchedulerContract.write_job` must put on the host."""

    id: str
    pids: tuple[int, ...]
    cpus: str
    """In the kernel's list format; processor n is on node n."""
    nodes: str
    uid: int

    def write_processes(self, root: Path, *, cgroup: str = "/") -> None:
        """Write /proc/PID of each process; all are in this cgroup (version 2), `/` being its root.

        Each may use the job's processors and nodes, runs as the job's user, and sleeps.
        """
        for pid in self.pids:
            write_process(
                root, pid, uid=self.uid, cpus=self.cpus, nodes=self.nodes, cgroup=f"0::{cgroup}\n"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class HookCall:
    """A call of one of the scheduler's hooks, and what it means."""

    point: str
    """The hook's name, as in `schedhook event SCHEDULER POINT`."""
    kind: EventKind
    """What `kind_of` must say of its event."""
    environ: Mapping[str, str] = field(default_factory=dict)
    data: bytes = b""
    """Standard input."""


class SchedulerContract(PluginContract):
    """For every adapter: jobs and their processes, events of hooks, and calls that make no sense.

    The host has four nodes with one processor each, and cgroups of version 2.
    """

    job_ids: tuple[str, str] = ("41", "42")
    """Ids of two jobs, as the scheduler writes them."""
    other_names: Mapping[str, str] = {}
    """What people call these jobs besides their ids, with the id of each: `{"40_2": "42"}`."""
    lists_jobs: bool = True
    """False if the adapter leaves `jobs` at its default, so that the watcher follows no job."""

    def write_job(self, root: Path, job: FakeJob) -> None:
        """Make `job` run on the host below `root` as the scheduler would; must be overridden."""
        raise NotImplementedError(
            f"{type(self).__name__} must define write_job(root, job), which puts a job of"
            f" {self.name} on the host; see schedhook.testing.SchedulerContract"
        )

    def hook_calls(self, job: str) -> Sequence[HookCall]:
        """Return calls of the scheduler's hooks about `job`, one for each; must be overridden."""
        raise NotImplementedError(
            f"{type(self).__name__} must define hook_calls(job), which returns a HookCall for each"
            f" hook of {self.name}; see schedhook.testing.SchedulerContract"
        )

    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        """Return a directory that stands for `/` of a host without jobs."""
        write_host(tmp_path, [FakeNode(number=number, cpus=str(number)) for number in range(4)])
        write_cgroup_mounts(tmp_path)
        return tmp_path

    @pytest.fixture
    def scheduler(self, root: Path) -> Scheduler:
        return self.loaded().scheduler(self.name).create(root)

    @pytest.fixture
    def jobs(self, root: Path) -> tuple[FakeJob, FakeJob]:
        """Write two jobs that run on the host, and return them."""
        first, second = self.job_ids
        jobs = (
            FakeJob(id=first, pids=(100, 101), cpus="0-1", nodes="0-1", uid=2001),
            FakeJob(id=second, pids=(200,), cpus="2", nodes="2", uid=2002),
        )
        for job in jobs:
            self.write_job(root, job)
        return jobs

    def test_it_has_its_name(self, scheduler: Scheduler) -> None:
        assert isinstance(scheduler, Scheduler)
        assert scheduler.name == self.name

    # -- jobs ------------------------------------------------------------------------------------

    def test_each_job_has_its_own_processes(
        self, scheduler: Scheduler, jobs: Sequence[FakeJob]
    ) -> None:
        for job in jobs:
            tasks = tasks_of(scheduler, job.id)
            assert sorted(pid for task in tasks for pid in task.pids) == list(job.pids)

    def test_tasks_are_placed_where_the_job_runs(
        self, scheduler: Scheduler, jobs: Sequence[FakeJob]
    ) -> None:
        for job in jobs:
            placements = [task.placement for task in tasks_of(scheduler, job.id)]
            assert all(placement.cpus and placement.nodes for placement in placements)
            cpus = CpuSet(cpu for placement in placements for cpu in placement.cpus)
            nodes = NodeSet(node for placement in placements for node in placement.nodes)
            assert (str(cpus), str(nodes)) == (job.cpus, job.nodes)

    def test_the_jobs_are_listed(self, scheduler: Scheduler, jobs: Sequence[FakeJob]) -> None:
        found = scheduler.jobs()
        assert isinstance(found, tuple)
        for job in found:
            assert isinstance(job, str)
            check_job(job)
        assert sorted(found) == (sorted(job.id for job in jobs) if self.lists_jobs else [])

    def test_the_cgroups_of_a_job_are_there(
        self, scheduler: Scheduler, root: Path, jobs: Sequence[FakeJob]
    ) -> None:
        for job in jobs:
            for path in scheduler.cgroups(job.id):
                assert path.is_relative_to(root)
                assert (path / "cgroup.procs").exists()

    def test_a_job_belongs_to_its_user(self, scheduler: Scheduler, jobs: Sequence[FakeJob]) -> None:
        assert [scheduler.owner(job.id) for job in jobs] == [job.uid for job in jobs]

    def test_a_running_job_needs_nothing(
        self, scheduler: Scheduler, jobs: Sequence[FakeJob]
    ) -> None:
        for job in jobs:
            assert scheduler.suspended(job.id) is False
            assert scheduler.starting(job.id) is False
            assert scheduler.rebind(job.id, {}) is False
            assert scheduler.finish_interrupted(job.id, {}, _relocate_nothing) is None
            assert scheduler.resolve_sharing(job.id, {}, _relocate_nothing, replace=True) is None

    def test_granted_nodes_are_those_of_the_job(
        self, scheduler: Scheduler, jobs: Sequence[FakeJob]
    ) -> None:
        for job in jobs:
            names = {task.name for task in tasks_of(scheduler, job.id)}
            for task, placement in scheduler.granted(job.id).items():
                assert task in names
                assert str(placement.nodes) == job.nodes

    def test_allowed_nodes_are_restored(
        self, scheduler: Scheduler, jobs: Sequence[FakeJob]
    ) -> None:
        before = [scheduler.tasks(job.id) for job in jobs]
        for job in jobs:
            assert isinstance(scheduler.allow_nodes(job.id, NodeSet({3})), bool)
            for _ in range(2):
                scheduler.restore_nodes(job.id)
        assert [scheduler.tasks(job.id) for job in jobs] == before

    def test_a_process_may_end_at_any_time(
        self, scheduler: Scheduler, root: Path, jobs: Sequence[FakeJob]
    ) -> None:
        job, _ = jobs
        gone, *others = job.pids
        shutil.rmtree(root / f"proc/{gone}")
        found = {pid for task in tasks_of(scheduler, job.id) for pid in task.pids}
        assert set(others) <= found <= set(job.pids)
        assert scheduler.owner(job.id) == job.uid

    def test_an_unknown_job_has_nothing_here(
        self, scheduler: Scheduler, jobs: Sequence[FakeJob]
    ) -> None:
        for job in ("987654321", jobs[0].id + "7"):
            assert scheduler.tasks(job) == ()
            assert scheduler.cgroups(job) == ()
            assert scheduler.owner(job) is None

    @pytest.mark.parametrize("job", ["..", "../../etc", "a/b", "x\0y", "*"])
    def test_what_cannot_be_a_job_finds_none(
        self, scheduler: Scheduler, jobs: Sequence[FakeJob], job: str
    ) -> None:
        assert jobs
        try:
            assert scheduler.tasks(job) == ()
        except UsageError as error:
            assert "\n" not in str(error)

    def test_a_job_is_found_by_what_people_call_it(
        self, scheduler: Scheduler, jobs: Sequence[FakeJob]
    ) -> None:
        names = {job.id: job.id for job in jobs} | dict(self.other_names)
        assert {text: scheduler.resolve(text) for text in names} == names

    @pytest.mark.parametrize("text", ["987654321", "no such job", "7_7", "7+7", "[", "", "a\nb"])
    def test_a_name_of_no_job_stays_as_it_is_or_is_refused(
        self, scheduler: Scheduler, jobs: Sequence[FakeJob], text: str
    ) -> None:
        assert jobs
        try:
            assert scheduler.resolve(text) == text
        except UsageError as error:
            assert "\n" not in str(error)

    def test_a_job_is_described_or_not(self, scheduler: Scheduler, jobs: Sequence[FakeJob]) -> None:
        for job in jobs:
            about = scheduler.describe(job.id)
            assert about is None or isinstance(about, JobDescription)
            if about is not None and about.alias:
                assert scheduler.resolve(about.alias) == job.id
        assert scheduler.describe("987654321") is None

    def test_what_it_can_reapply_it_has_a_method_for(self, scheduler: Scheduler) -> None:
        has_method = type(scheduler).reapply is not Scheduler.reapply
        assert scheduler.can_reapply is has_method

    # -- events ----------------------------------------------------------------------------------

    def test_the_calls_of_hooks_are_read(self, scheduler: Scheduler) -> None:
        for job in self.job_ids:
            calls = self.hook_calls(job)
            assert calls, "hook_calls must return at least one call"
            for call in calls:
                event = scheduler.read_event(call.point, call.environ, call.data)
                self.check_event(scheduler, event)
                assert event.job == job
                assert scheduler.kind_of(event) is call.kind, call.point

    def test_events_are_recorded(self, scheduler: Scheduler, jobs: Sequence[FakeJob]) -> None:
        for job in jobs:
            for call in self.hook_calls(job.id):
                event = scheduler.read_event(call.point, call.environ, call.data)
                scheduler.record_event(event)
                told = scheduler.jobs_told(event)
                assert told is None or (
                    isinstance(told, frozenset) and all(isinstance(each, str) for each in told)
                )

    def test_points_have_known_kinds(self, scheduler: Scheduler) -> None:
        for point, kind in scheduler.kinds.items():
            assert isinstance(kind, EventKind), point

    @pytest.mark.parametrize(
        "data", [b"", b"\xff\0", b"{", b"[]", b"7", b"null", b'{"job": 7}', b"[" * 100_000]
    )
    def test_an_event_is_read_or_refused(self, scheduler: Scheduler, data: bytes) -> None:
        points = [call.point for call in self.hook_calls(self.job_ids[0])]
        for point in ("no-such-point", *points):
            try:
                event = scheduler.read_event(point, {"X": "y"}, data)
            except UsageError as error:
                assert "\n" not in str(error)
            else:
                self.check_event(scheduler, event)

    def check_event(self, scheduler: Scheduler, event: Event) -> None:
        """Check what holds for every event: the scheduler's name, a job's id or none, a kind."""
        assert isinstance(event, Event)
        assert event.scheduler == self.name
        assert isinstance(event.job, str)
        assert isinstance(event.user, int | None)
        assert isinstance(scheduler.kind_of(event), EventKind)


def _relocate_nothing(request: Request) -> NoReturn:
    raise AssertionError(f"the adapter relocates a job that needs nothing: {request}")


def tasks_of(scheduler: Scheduler, job: str) -> tuple[Task, ...]:
    """Return the job's tasks, checked: named differently, each process in one of them."""
    tasks = scheduler.tasks(job)
    assert isinstance(tasks, tuple)
    assert tasks, f"the adapter finds no task of job {job}"
    for task in tasks:
        assert isinstance(task, Task)
        assert task.name
        assert task.pids
    pids = [pid for task in tasks for pid in task.pids]
    assert len({task.name for task in tasks}) == len(tasks)
    assert len(set(pids)) == len(pids)
    return tasks
