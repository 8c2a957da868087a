"""Where Slurm keeps a job's processes, and what their control groups and /proc tell of them.

    v2  …/JOB/step_S/user/{task_M,task_special}
    v1  …/JOB/step_S[/task_M], in each hierarchy that Slurm uses

Slurm's own slurmstepd lives in `step_S/slurm` (v2) or among the tasks (v1). Slurm 22.05 puts all of
a step's tasks in `task_special`, so the number of a task comes from its environment.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from schedhook.host.cgroups import Cgroup, pids
from schedhook.host.listing import find_directories
from schedhook.host.processes import read_environment, read_status, read_threads_cpus
from schedhook.host.vanishing import read_living
from schedhook.values.errors import ProcessGoneError, SchedhookError
from schedhook.values.sets import CpuSet

_STEP = re.compile(r"step_([A-Za-z0-9+_.]{1,64})")
_TASK = re.compile(r"task_([0-9]{1,10})")
_NUMBERED_STEPS = {"4294967294": "batch", "4294967295": "extern", "4294967290": "interactive"}
"""Old versions number these steps as slurm.h does: SLURM_BATCH_SCRIPT and its neighbours."""
SLURMSTEPD = "slurmstepd"


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A process's place in a job, as its cgroup tells."""

    step: str
    """`0`, `batch`, `extern`, `interactive`."""
    task: str = ""
    """The task's number, empty if the cgroup has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessInfo:
    """What /proc tells of a process of a job."""

    name: str
    state: str
    uid: int
    parent: int
    cpus: CpuSet
    """The processors that any of its threads may use."""


def step_cgroups(job: Cgroup) -> dict[str, Cgroup]:
    """Return the cgroup of each step, which holds Slurm's own processes too, by step name."""
    steps = ((name, _STEP.fullmatch(name)) for name in find_directories(job.path))
    return {
        _NUMBERED_STEPS.get(step[1], step[1]): replace(job, path=job.path / name)
        for name, step in steps
        if step
    }


def user_cgroups(job: Cgroup) -> dict[str, Cgroup]:
    """Return the cgroup below which each step's tasks are, by step name.

    On version 1 it is the step's cgroup, which slurmstepd is in as well.
    """
    steps = step_cgroups(job)
    if job.version == 1:
        return steps
    return {step: replace(cgroup, path=cgroup.path / "user") for step, cgroup in steps.items()}


def members(job: Cgroup, root: Path) -> dict[int, Member]:
    """Return the job's processes in one hierarchy, without those in Slurm's own cgroups."""
    found: dict[int, Member] = {}
    for step, cgroup in user_cgroups(job).items():
        found |= dict.fromkeys(pids(cgroup, root), Member(step=step))
        for name in find_directories(cgroup.path):
            task = _TASK.fullmatch(name)
            if task:
                below = replace(cgroup, path=cgroup.path / name)
                found |= dict.fromkeys(pids(below, root), Member(step=step, task=task[1]))
    return found


def merge(hierarchies: Iterable[Mapping[int, Member]]) -> dict[int, Member]:
    """Combine the members seen in several hierarchies; an entry that names the task wins."""
    found: dict[int, Member] = {}
    for seen in hierarchies:
        for pid, member in seen.items():
            if pid not in found or (member.task and not found[pid].task):
                found[pid] = member
    return found


def starting_steps(job: Cgroup, root: Path) -> tuple[str, ...]:
    """Return the steps whose tasks Slurm seems to have yet to bind and start.

    Such a step has a slurmstepd in the place of a task, or no process but slurmstepd. Limit the
    time for which you wait: a step that ends slowly looks the same, and users can name their
    processes as they like.
    """
    found = []
    for step, cgroup in step_cgroups(job).items():
        if not step.isdigit():
            continue
        processes = dict(read_living(pids(cgroup, root), lambda pid: read_process(pid, root)))
        own = {pid for pid, info in processes.items() if info.name == SLURMSTEPD}
        if own and (own == set(processes) or any(processes[pid].parent in own for pid in own)):
            found.append(step)
    return tuple(found)


def read_process(pid: int, root: Path) -> ProcessInfo:
    """Read a process. Raise ProcessGoneError if it has ended, also if it is a zombie."""
    status = read_status(pid, root)
    # The leader of a process can end before its other threads do.
    if status.state in ("Z", "X") and status.threads == 1:
        raise ProcessGoneError(f"process {pid} has ended")
    cpus = CpuSet() if status.threads == 1 else read_threads_cpus(pid, root)
    return ProcessInfo(
        name=status.name,
        state=status.state,
        uid=status.uid,
        parent=status.parent,
        cpus=cpus or status.allowed_cpus,
    )


def read_variables(pid: int, root: Path, names: Collection[str]) -> dict[str, str]:
    """Return those variables of the process's initial environment; none if it cannot be read.

    Use them only to group and to name processes: the job's user can write anything there.
    """
    try:
        environment = read_environment(pid, root)
    except SchedhookError:
        return {}
    found: dict[str, str] = {}
    for variable in environment.split(b"\0"):
        name, _, value = variable.decode("utf-8", "replace").partition("=")
        if name in names:
            found.setdefault(name, value)
    return found
