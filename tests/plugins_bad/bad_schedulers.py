"""A sound adapter, and others with one fault each, which the contract must find."""

import json

from schedhook import SchedulerPlugin, hookimpl
from schedhook.host.topology import read_topology
from schedhook.roles.request import Request
from schedhook.roles.scheduler import Scheduler, Task
from schedhook.values.errors import UsageError
from schedhook.values.model import Event, Placement
from schedhook.values.sets import CpuSet, NodeSet


class Good(Scheduler):
    """Jobs are cgroups `batch/JOB`; events are JSON objects."""

    name = "batch"

    def read_event(self, point, _environ, data):
        try:
            job = json.loads(data)["job"]
        except (ValueError, TypeError, KeyError, RecursionError):
            job = None
        if not isinstance(job, str):
            raise UsageError(f"batch event {point}: standard input names no job")
        return Event(scheduler=self.name, point=point, job=job)

    def jobs(self):
        return tuple(sorted(path.name for path in self._top().iterdir() if path.is_dir()))

    def tasks(self, job):
        path = self._top() / job
        if job not in self.jobs():
            return ()
        pids = tuple(sorted(map(int, (path / "cgroup.procs").read_text().split())))
        cpus = CpuSet.parse((path / "cpuset.cpus").read_text().strip())
        nodes = NodeSet.parse((path / "cpuset.mems").read_text().strip())
        return (Task(name="job", pids=pids, placement=Placement(cpus=cpus, nodes=nodes)),)

    def cgroups(self, job):
        return (self._top() / job,) if job in self.jobs() else ()

    def _top(self):
        return self.root / "sys/fs/cgroup/batch"


class FindsNoJob(Good):
    def tasks(self, _job):
        return ()


class ListsNone(Good):
    def jobs(self):
        return (None,)


class EventOfNoJob(Good):
    def read_event(self, point, environ, data):
        super().read_event(point, environ, data)
        return Event(scheduler=self.name, point=point, job=None)


class AnotherName(Good):
    def read_event(self, point, environ, data):
        event = super().read_event(point, environ, data)
        return Event(scheduler="slurm", point=point, job=event.job)


class UnknownKind(Good):
    def kind_of(self, _event):
        return "party"


class UnknownKindOfPoint(Good):
    kinds = {"prolog": "party"}  # noqa: RUF012


class WrongKind(Good):
    kinds = {"epilog": "job-started"}  # noqa: RUF012


class ProcessOfAnotherJob(Good):
    def tasks(self, _job):
        tasks = super().tasks
        return tuple(task for each in self.jobs() for task in tasks(each))


class ProcessTwice(Good):
    def tasks(self, job):
        return super().tasks(job) * 2


class WholeHost(Good):
    def tasks(self, job):
        topology = read_topology(self.root)
        whole = Placement(cpus=topology.cpus, nodes=topology.memory_nodes)
        return tuple(
            Task(name=task.name, pids=task.pids, placement=whole) for task in super().tasks(job)
        )


class RaisesForGoneProcess(Good):
    def tasks(self, job):
        tasks = super().tasks(job)
        for task in tasks:
            for pid in task.pids:
                (self.root / f"proc/{pid}/status").read_text()
        return tasks


class BelievesPaths(Good):
    def tasks(self, job):
        (self._top() / job / "cgroup.procs").read_text()
        return super().tasks(job)


class CrashesOnGarbage(Good):
    def read_event(self, point, _environ, data):
        return Event(scheduler=self.name, point=point, job=json.loads(data)["job"])


class AlwaysSuspended(Good):
    def suspended(self, _job):
        return True


class CannotReapply(Good):
    can_reapply = True


class OtherName(Good):
    name = "lsf"


class GrantsOtherNodes(Good):
    def granted(self, job):
        other = NodeSet({3})
        return {
            task.name: Placement(cpus=task.placement.cpus, nodes=other) for task in self.tasks(job)
        }


class ForgetsToRestore(Good):
    def allow_nodes(self, job, nodes):
        (self._top() / job / "cpuset.mems").write_text(str(nodes))
        return True


class ReplacesWithoutNeed(Good):
    def resolve_sharing(self, job, _parked, relocate, *, replace):
        return relocate(Request(job=job, scheduler=self.name)) if replace else None


class CannotRecord(Good):
    def record_event(self, event):
        self.notes.set(event.job, "user", event.data["user"])


class _Plugin:
    def __init__(self, adapter):
        self._adapter = adapter

    @hookimpl
    def schedhook_schedulers(self):
        return [SchedulerPlugin(name="batch", summary="for a test", create=self._adapter)]


def plugin(adapter):
    """Return a plug-in with this adapter."""
    return _Plugin(adapter)
