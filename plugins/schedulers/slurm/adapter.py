"""The adapter for Slurm: what its hooks say, and a job's tasks and placement on this host.

Slurm confines a job's processors, not its memory, and binds tasks by affinity: a task's processors
are those that its threads may use, and its nodes follow from them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from schedhook import SchedulerPlugin, hookimpl
from schedhook.host.cgroups import Cgroup, frozen
from schedhook.host.topology import Topology, read_topology
from schedhook.host.vanishing import read_living
from schedhook.roles.scheduler import EventKind, Scheduler, Task
from schedhook.values.errors import UsageError
from schedhook.values.model import Event, Placement
from schedhook.values.sets import CpuSet
from schedhook_plugins.schedulers.slurm import cgroups
from schedhook_plugins.schedulers.slurm.cgroups import Member, ProcessInfo

if TYPE_CHECKING:
    from schedhook.plugins.findings import Finding
    from schedhook.roles.request import Request
    from schedhook.values.model import PlacementOverride, Report

NAME = "slurm"

_KINDS = {
    "prolog": EventKind.JOB_STARTED,
    "epilog": EventKind.JOB_ENDED,
    "task-prolog": EventKind.STEP_STARTED,
    "job-migrate": EventKind.RELOCATED,
}
_CONTEXTS = {
    "prolog": "prolog_slurmd",
    "epilog": "epilog_slurmd",
    "task-prolog": "prolog_task",
}
"""SLURM_SCRIPT_CONTEXT, which newer versions set, by point."""

_NUMBERS = {
    "SLURM_STEP_ID": "step",
    "SLURM_LOCALID": "local_id",
    "SLURM_PROCID": "rank",
    "SLURM_TASK_PID": "pid",
    "SLURM_RESTART_COUNT": "restarts",
    "SLURM_JOB_RESTART_COUNT": "restarts",
}
_WORDS = {
    "SLURM_CLUSTER_NAME": "cluster",
    "SLURM_JOB_USER": "user_name",
    "SLURM_JOB_PARTITION": "partition",
    "SLURM_JOB_CPUS_PER_NODE": "cpus_per_host",
    "SLURM_CPU_BIND": "binding",
}
_JOB = re.compile(r"[1-9][0-9]{0,9}")
_NUMBER = re.compile(r"[0-9]{1,10}")
_LONGEST_WORD = 256
_NO_TASK = frozenset({"batch", "extern", "interactive"})


class Slurm(Scheduler):
    """Slurm on this host."""

    name = NAME
    can_reapply = True
    kinds: Mapping[str, EventKind] = _KINDS | {
        point.replace("-", "_"): kind for point, kind in _KINDS.items()
    }

    def __init__(self, root: Path = Path("/"), host: str | None = None) -> None:
        super().__init__(root)
        self.host = host
        """Only this slurmd's part of a job, where several of them share a kernel."""
        self._topology: tuple[str, Topology] | None = None

    # -- events ----------------------------------------------------------------------------------

    def read_event(self, point: str, environ: Mapping[str, str], _data: bytes) -> Event:
        """What Prolog, Epilog, TaskProlog or job-migrate have in their environment.

        UsageError for an environment that is not theirs. In TaskProlog all of it is the job's user
        to choose: what it says is checked for form here, and against the sender by the agent.
        """
        point = point.replace("_", "-")
        if point not in _KINDS:
            raise UsageError(f"Slurm has no hook {point!r} here; known: {', '.join(_KINDS)}")
        context = environ.get("SLURM_SCRIPT_CONTEXT", "")
        if context and context != _CONTEXTS.get(point, context):
            raise UsageError(
                f"this is Slurm's {context}, not {point}: the line in slurm.conf has to be"
                " Prolog, Epilog or TaskProlog, which run on the job's hosts"
            )
        job = environ.get("SLURM_JOB_ID") or environ.get("SLURM_JOBID", "")
        if not _JOB.fullmatch(job):
            raise UsageError(f"SLURM_JOB_ID is {job[:40]!r}, not a job's number")
        user = environ.get("SLURM_JOB_UID", "")
        if user and not _NUMBER.fullmatch(user):
            raise UsageError(f"SLURM_JOB_UID is {user[:40]!r}, not a user's number")
        return Event(
            scheduler=NAME,
            point=point,
            job=job,
            user=int(user) if user else None,
            host=_word(environ.get("SLURMD_NODENAME", "")),
            data=_event_data(environ),
        )

    # -- a job on this host ----------------------------------------------------------------------

    def jobs(self) -> tuple[str, ...]:
        """The jobs that have a cgroup here now."""
        return cgroups.job_ids(self.root, self.host)

    def cgroups(self, job: str) -> tuple[Path, ...]:
        """The job's cgroups: one for each hierarchy (and each slurmd, where several run here)."""
        return tuple(cgroup.path for cgroup in cgroups.job_cgroups(job, self.root, self.host))

    def job_of(self, pid: int) -> str | None:
        """The job that a process belongs to, by its cgroup, None where it belongs to none."""
        return cgroups.job_of(pid, self.root)

    def tasks(self, job: str) -> tuple[Task, ...]:
        """The job's tasks here: `0.1` is task 1 of step 0; `batch` and `extern` are steps without
        numbered tasks, and `0` has those processes of step 0 that do not tell their task."""
        processes = self._processes(job)
        if not processes:
            return ()
        groups: dict[str, list[int]] = {}
        for pid, name in self._names(processes).items():
            groups.setdefault(name, []).append(pid)
        return tuple(
            Task(
                name=name,
                pids=tuple(sorted(pids)),
                placement=self.placement(
                    CpuSet(cpu for pid in pids for cpu in processes[pid][1].cpus)
                ),
            )
            for name, pids in sorted(groups.items(), key=lambda item: _order(item[0]))
        )

    def placement(self, cpus: CpuSet) -> Placement:
        """These processors and their nodes."""
        return Placement(cpus=cpus, nodes=self._read_topology().memory_nodes_of(cpus))

    def owner(self, job: str) -> int | None:
        """The job's user, by the processes that it has here; None where they do not tell."""
        processes = self._processes(job).values()
        users = {info.uid for member, info in processes if member.step != "extern"}
        return users.pop() if len(users) == 1 else None

    def suspended(self, job: str) -> bool:
        """Whether all of the job is stopped or frozen: `scontrol suspend`, gang scheduling,
        preemption. Slurm leaves srun itself running."""
        stopped: set[str] = set()
        for cgroup in cgroups.job_cgroups(job, self.root, self.host):
            for step, path in cgroups.step_cgroups(cgroup).items():
                at = Cgroup(path=path, version=cgroup.version, mount=cgroup.mount)
                if frozen(at, self.root):
                    stopped.add(step)
        all_of_it = [
            member.step in stopped or info.state in ("T", "t")
            for member, info in self._processes(job).values()
            if info.name != "srun"
        ]
        return bool(all_of_it) and all(all_of_it)

    def starting(self, job: str) -> bool:
        """Whether Slurm seems about to bind and start tasks of a step here. It writes cpusets first
        and binds then: processors that change in between cost the tasks their binding, and nobody
        could tell any more which task belongs where."""
        found = cgroups.job_cgroups(job, self.root, self.host)
        return any(cgroups.starting_steps(cgroup, self.root) for cgroup in found)

    # -- relocation ------------------------------------------------------------------------------

    def reapply(
        self,
        job: str,
        override: PlacementOverride,
        relocate: Callable[[Request], Report],
        homes: Mapping[str, Placement] | None = None,
    ) -> str:
        """Make processors, binding and memory of the job again what was wished: Slurm writes its
        own cpuset whenever a step starts. `homes`: where the tasks were before, as the journal
        knows. One line for people; SchedhookError, and then processors are as they were."""
        from schedhook_plugins.schedulers.slurm import migrate  # noqa: PLC0415 - only then

        return migrate.reapply(self, job, override, relocate, homes or {})

    def rebind(self, job: str, bound: Mapping[str, Placement]) -> bool:
        """Bind tasks anew whose binding was lost because somebody took processors away: each to
        those that stand in the place of the ones that it had (`bound`, by task). Whether any was.
        SchedhookError."""
        from schedhook_plugins.schedulers.slurm import migrate  # noqa: PLC0415 - only then

        return migrate.rebind(self, job, bound)

    # -- inside ----------------------------------------------------------------------------------

    def _processes(self, job: str) -> dict[int, tuple[Member, ProcessInfo]]:
        """The job's living processes, without Slurm's own."""
        own = cgroups.job_cgroups(job, self.root, self.host)
        members = cgroups.merge(cgroups.members(cgroup, self.root) for cgroup in own)
        found = {}
        for pid, info in read_living(members, lambda pid: cgroups.read_process(pid, self.root)):
            # Among the user's it is a task that has yet to become the user's program.
            if info.name != cgroups.SLURMSTEPD:
                found[pid] = (members[pid], info)
        return found

    def _names(self, processes: Mapping[int, tuple[Member, ProcessInfo]]) -> dict[int, str]:
        """The task that each process belongs to. One that does not tell belongs to its parent's."""
        told: dict[int, str] = {}
        for pid, (member, _) in processes.items():
            if member.step in _NO_TASK:
                told[pid] = member.step
                continue
            task = member.task or cgroups.rank_in_environment(pid, self.root)
            if task:
                told[pid] = f"{member.step}.{int(task)}"
        names = {}
        for pid, (member, info) in processes.items():
            seen, at, parent = {pid}, pid, info.parent
            while at not in told and parent in processes and parent not in seen:
                seen.add(at := parent)
                parent = processes[at][1].parent
            names[pid] = told.get(at, member.step)
        return names

    def _read_topology(self) -> Topology:
        """Read anew only when a processor or a node came or went: this runs for every look."""
        online = "".join(
            _text(self.root / "sys/devices/system" / each / "online") for each in ("cpu", "node")
        )
        if self._topology is None or self._topology[0] != online:
            self._topology = (online, read_topology(self.root))
        return self._topology[1]


def _order(name: str) -> tuple[int, int, str]:
    """Steps in the order of their numbers, then their tasks; batch and the like before."""
    step, _, task = name.partition(".")
    if not step.isdigit():
        return (-1, 0, name)
    return (int(step), int(task) if task.isdigit() else -1, name)


def _event_data(environ: Mapping[str, str]) -> dict[str, object]:
    """What there is besides the job: numbers as numbers, names as they are, other things not."""
    data: dict[str, object] = {}
    for variable, key in _NUMBERS.items():
        value = environ.get(variable, "")
        if _NUMBER.fullmatch(value):
            data[key] = int(value)
    for variable, key in _WORDS.items():
        word = _word(environ.get(variable, ""))
        if word:
            data[key] = word
    return data


def _word(text: str) -> str:
    return text if text.isprintable() and len(text) <= _LONGEST_WORD else ""


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


@hookimpl
def schedhook_doctor(root: Path) -> list[Finding]:
    from schedhook_plugins.schedulers.slurm import doctor  # noqa: PLC0415 - only for the doctor

    return list(doctor.examine(root))


@hookimpl
def schedhook_schedulers() -> list[SchedulerPlugin]:
    return [SchedulerPlugin(name=NAME, summary="Slurm jobs", create=Slurm)]
