"""What Slurm's hooks send, and the jobs, tasks and placements that are on this host.

Nothing is asked of Slurm's controller: events are read from a hook's environment, and jobs from
their cgroups and from /proc.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from schedhook.host.cgroups import Cgroup, frozen
from schedhook.host.processes import read_start_time
from schedhook.host.topology import Topology, read_topology
from schedhook.host.vanishing import read_living
from schedhook.roles.scheduler import EventKind, JobDescription, Task
from schedhook.values.errors import UsageError
from schedhook.values.model import Event, Placement
from schedhook.values.sets import CpuSet
from schedhook_plugins.schedulers.slurm import cgroups, names
from schedhook_plugins.schedulers.slurm.cgroups import Member, ProcessInfo
from schedhook_plugins.schedulers.slurm.hostlist import expand_hosts
from schedhook_plugins.schedulers.slurm.origin import asked_in
from schedhook_plugins.schedulers.slurm.scopes import JobCgroups

NAME = "slurm"

_POINTS = {
    "prolog": EventKind.JOB_STARTED,
    "epilog": EventKind.JOB_ENDED,
    "task-prolog": EventKind.STEP_STARTED,
    "job-migrate": EventKind.RELOCATED,
}
KINDS: Mapping[str, EventKind] = _POINTS | {
    point.replace("-", "_"): kind for point, kind in _POINTS.items()
}
"""What each hook means, by its point in both spellings."""

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
    "SLURM_JOB_ACCOUNT": "account",
    "SLURM_JOB_CPUS_PER_NODE": "cpus_per_host",
    "SLURM_CPU_BIND": "binding",
}
_JOB = re.compile(r"[1-9][0-9]{0,9}")
_NUMBER = re.compile(r"[0-9]{1,10}")
_LONGEST_WORD = 256
_RANK = frozenset({"SLURM_PROCID"})
_END = frozenset({"SLURM_JOB_END_TIME"})
_DESCRIBING = 8
"""So many of a job's processes are asked at most what people call it."""
_STEPS_WITHOUT_TASKS = frozenset({"batch", "extern", "interactive"})


# -- events --------------------------------------------------------------------------------------


def read_event(point: str, environ: Mapping[str, str]) -> Event:
    """Return the event that Prolog, Epilog, TaskProlog or job-migrate has in its environment.

    Raise UsageError if the environment is not that hook's. In TaskProlog the job's user can choose
    all of it: this function checks only the form, and the agent checks it against the sender.
    """
    point = point.replace("_", "-")
    if point not in _POINTS:
        raise UsageError(f"Slurm has no hook {point!r}; known hooks: {', '.join(_POINTS)}")
    context = environ.get("SLURM_SCRIPT_CONTEXT", "")
    if context and context != _CONTEXTS.get(point, context):
        raise UsageError(
            f"this is Slurm's {context}, not {point}: set Prolog, Epilog or TaskProlog in"
            " slurm.conf, which run on the job's hosts"
        )
    job = environ.get("SLURM_JOB_ID") or environ.get("SLURM_JOBID", "")
    if point == "task-prolog":
        job = _component_here(environ) or job
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
        data=_event_data(environ) | _choice(point, environ),
    )


def _component_here(environ: Mapping[str, str]) -> str:
    """Return the number of a heterogeneous job's component on this host, empty unless it is sure.

    Tasks of every component have the first one's number as SLURM_JOB_ID.
    """
    host = environ.get("SLURMD_NODENAME", "")
    found = []
    for component in range(names.MOST_COMPONENTS):
        number = environ.get(f"SLURM_JOB_ID_HET_GROUP_{component}", "")
        if not number:
            break
        with suppress(ValueError):
            if host in expand_hosts(environ.get(f"SLURM_JOB_NODELIST_HET_GROUP_{component}", "")):
                found.append(number)
    return found[0] if len(found) == 1 else ""


def _event_data(environ: Mapping[str, str]) -> dict[str, object]:
    """Return the well-formed values besides the job: numbers as int, names as str."""
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


def _choice(point: str, environ: Mapping[str, str]) -> dict[str, object]:
    """Return what the user asks for: for the job by its comment, for a step by SCHEDHOOK."""
    if point == "prolog":
        asked = asked_in(environ)
        return {"asked": asked} if asked else {}
    said = _word(environ.get("SCHEDHOOK", "")) if point == "task-prolog" else ""
    return {"choice": said} if said else {}


def _word(text: str) -> str:
    return text if text.isprintable() and len(text) <= _LONGEST_WORD else ""


# -- jobs ----------------------------------------------------------------------------------------


class HostJobs:
    """Slurm's jobs on this host, read again at each call."""

    def __init__(self, root: Path = Path("/"), host: str | None = None) -> None:
        self.root = root
        self.host = host
        """Slurm's name for this host: only this slurmd's part of a job, if several share a
        kernel."""
        self._cgroups = JobCgroups(root, host)
        self._topology: tuple[str, Topology] | None = None

    def jobs(self) -> tuple[str, ...]:
        """Return the numbers of the jobs that have a process on this host, in ascending order."""
        return self._cgroups.running()

    def allocated(self) -> tuple[str, ...]:
        """Return the numbers of the jobs that have a cgroup on this host, in ascending order."""
        return self._cgroups.jobs()

    def cgroups(self, job: str) -> tuple[Cgroup, ...]:
        """Return the job's cgroups, one for each hierarchy (and each slurmd, if several run)."""
        return self._cgroups.of(job)

    def resolve(self, text: str) -> str:
        """Return the number of the job that people call `text`, `text` itself if there is none.

        Raise UsageError for the number of an array or of a heterogeneous job, and for a text that
        names several jobs here.
        """
        if text in (sluids := self._cgroups.sluids()):
            return sluids[text]
        aliases = {job: about.alias for job in self.jobs() if (about := self.describe(job))}
        return names.resolve(text, aliases)

    def describe(self, job: str) -> JobDescription | None:
        """Return what its tasks' environment says of the job; the user may have changed it."""
        members = self._members(job)
        tasks = [pid for pid in members if members[pid].step != "extern"]
        for pid in sorted(tasks, key=lambda pid: (members[pid].step != "batch", pid))[:_DESCRIBING]:
            variables = cgroups.read_variables(pid, self.root, names.VARIABLES)
            if about := names.describe(variables, job):
                return about
        return None

    def first_process(self, job: str) -> int | None:
        """Return the oldest process of the batch script, else of any step but `extern`.

        Processes that Slurm itself has yet to turn into a task's program are left out.
        """
        found = {
            pid: member.step != "batch"
            for pid, (member, _) in self._processes(job).items()
            if member.step != "extern"
        }
        ages = dict(read_living(found, lambda pid: read_start_time(pid, self.root)))
        return min(ages, key=lambda pid: (found[pid], ages[pid], pid), default=None)

    def ends_at(self, job: str) -> float | None:
        """Return the job's limit of time, in seconds after the epoch, as its environment has it.

        Slurm 23.02 and later set SLURM_JOB_END_TIME. None if no process has it. The user may have
        changed it, and an administrator may have extended the limit since.
        """
        for pid in sorted(self._members(job))[:_DESCRIBING]:
            end = cgroups.read_variables(pid, self.root, _END).get("SLURM_JOB_END_TIME", "")
            if _NUMBER.fullmatch(end):
                return float(end)
        return None

    def tasks(self, job: str) -> tuple[Task, ...]:
        """Return the job's tasks on this host, steps in ascending order.

        `0.1` is task 1 of step 0; `batch` and `extern` are steps without numbered tasks; `0` holds
        those processes of step 0 whose task is unknown.
        """
        processes = self._processes(job)
        groups: dict[str, list[int]] = {}
        for pid, name in self._task_names(processes).items():
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
        """Return these processors together with the nodes of their memory."""
        return Placement(cpus=cpus, nodes=self._read_topology().memory_nodes_of(cpus))

    def owner(self, job: str) -> int | None:
        """Return the uid that runs the job's processes here, None if there is not exactly one."""
        processes = self._processes(job).values()
        users = {info.uid for member, info in processes if member.step != "extern"}
        return users.pop() if len(users) == 1 else None

    def suspended(self, job: str) -> bool:
        """Return whether the whole job is stopped or frozen.

        `scontrol suspend`, gang scheduling and preemption do so. Slurm leaves srun itself running.
        """
        frozen_steps = {
            step
            for cgroup in self.cgroups(job)
            for step, users in cgroups.user_cgroups(cgroup).items()
            if frozen(users, self.root)
        }
        stopped = [
            member.step in frozen_steps or info.state in ("T", "t")
            for member, info in self._processes(job).values()
            if info.name != "srun"
        ]
        return bool(stopped) and all(stopped)

    def starting(self, job: str) -> bool:
        """Return whether Slurm seems about to bind and start tasks of a step here.

        Slurm writes cpusets first and binds later. If the processors change in between, the tasks
        lose their binding, and no reader can tell which task belongs where.
        """
        return any(cgroups.starting_steps(cgroup, self.root) for cgroup in self.cgroups(job))

    # -- inside ----------------------------------------------------------------------------------

    def _members(self, job: str) -> dict[int, Member]:
        """Return the processes in the job's cgroups, except those in Slurm's own."""
        return cgroups.merge(cgroups.members(cgroup, self.root) for cgroup in self.cgroups(job))

    def _processes(self, job: str) -> dict[int, tuple[Member, ProcessInfo]]:
        """Return the job's living processes without Slurm's own."""
        members = self._members(job)
        found = {}
        for pid, info in read_living(members, lambda pid: cgroups.read_process(pid, self.root)):
            # A slurmstepd among the user's processes has yet to become a task's program.
            if info.name != cgroups.SLURMSTEPD:
                found[pid] = (members[pid], info)
        return found

    def _task_names(self, processes: Mapping[int, tuple[Member, ProcessInfo]]) -> dict[int, str]:
        """Return each process's task: its own if it has one, else its nearest ancestor's."""
        own: dict[int, str] = {}
        for pid, (member, _) in processes.items():
            if member.step in _STEPS_WITHOUT_TASKS:
                own[pid] = member.step
                continue
            if task := member.task or self._rank(pid):
                own[pid] = f"{member.step}.{int(task)}"
        names = {}
        for pid, (member, info) in processes.items():
            seen, at, parent = {pid}, pid, info.parent
            while at not in own and parent in processes and parent not in seen:
                seen.add(at := parent)
                parent = processes[at][1].parent
            names[pid] = own.get(at, member.step)
        return names

    def _rank(self, pid: int) -> str:
        """Return the number that Slurm gave to the task, empty if its environment has none."""
        rank = cgroups.read_variables(pid, self.root, _RANK).get("SLURM_PROCID", "")
        return rank if _NUMBER.fullmatch(rank) else ""

    def _read_topology(self) -> Topology:
        """Return the topology, read again only if a processor or a node came or went.

        Every look at a job calls this.
        """
        online = "".join(
            _text(self.root / "sys/devices/system" / each / "online") for each in ("cpu", "node")
        )
        if self._topology is None or self._topology[0] != online:
            self._topology = (online, read_topology(self.root))
        return self._topology[1]


def _order(name: str) -> tuple[int, int, str]:
    """Sort steps by number, then tasks by number; batch and the like come first."""
    step, _, task = name.partition(".")
    if not step.isdigit():
        return (-1, 0, name)
    return (int(step), int(task) if task.isdigit() else -1, name)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
