"""Where Slurm keeps a job's processes: its control groups, versions 1 and 2, and what they tell.

    v2  system.slice/[HOST_]slurmstepd.scope/job_N/step_S/user/{task_M,task_special}
    v1  slurm[_HOST]/uid_U/job_N/step_S[/task_M], in each hierarchy that Slurm uses

Slurm's own slurmstepd lives in `step_S/slurm` (v2) or among the tasks (v1). Slurm 22.05 puts all of
a step's tasks in `task_special`, so the number of a task comes from its environment.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from schedhook.host.cgroups import Cgroup, hierarchies, memberships, pids
from schedhook.host.listing import find_directories
from schedhook.host.processes import read_status, read_threads_cpus
from schedhook.host.vanishing import read_living
from schedhook.values.errors import ProcessGoneError, SchedhookError
from schedhook.values.sets import CpuSet

_JOB = re.compile(r"job_([0-9]{1,10})")
_STEP = re.compile(r"step_([A-Za-z0-9+_.]{1,64})")
_TASK = re.compile(r"task_([0-9]{1,10})")
_SCOPE = re.compile(r"(?:.+_)?slurmstepd\.scope")
_SLURM_V1 = re.compile(r"slurm(?:_.+)?")
# Only below slices, which systemd makes: a user can make cgroups of any name in services of their
# own.
_JOB_IN_NAME = re.compile(
    r"(?:/[^/]+\.slice)*/(?:[^/]+_)?slurmstepd\.scope/job_([0-9]{1,10})(?:/.*)?"
    r"|/slurm(?:_[^/]+)?/uid_[0-9]+/job_([0-9]{1,10})(?:/.*)?",
    re.DOTALL,
)
_NUMBERED_STEPS = {"4294967294": "batch", "4294967295": "extern", "4294967290": "interactive"}
"""Old versions number these steps as slurm.h does: SLURM_BATCH_SCRIPT and its neighbours."""
_SLICES_DEEP = 2
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


# -- a host's jobs -------------------------------------------------------------------------------


def job_ids(root: Path, host: str | None = None) -> tuple[str, ...]:
    """Return the jobs that have a cgroup on this host, in ascending order."""
    found = {cgroup.path.name.removeprefix("job_") for cgroup in _all_jobs(root, host)}
    return tuple(sorted(found, key=int))


def job_cgroups(job: str, root: Path, host: str | None = None) -> tuple[Cgroup, ...]:
    """Return the job's cgroups, one for each hierarchy.

    If several slurmds share a kernel, as on test systems, return one for each that has a part of
    the job, or only those of the slurmd called `host`.
    """
    if not re.fullmatch(r"[0-9]{1,10}", job):
        return ()
    jobs = (replace(base, path=base.path / f"job_{job}") for base in _bases(root, host))
    return tuple(each for each in jobs if each.path.is_dir())


def job_of(pid: int, root: Path) -> str | None:
    """Return the job that a process belongs to, None if it belongs to none or is gone."""
    with contextlib.suppress(SchedhookError):
        for _, name in memberships(pid, root):
            if found := _JOB_IN_NAME.fullmatch(name):
                return found[1] or found[2]
    return None


def _all_jobs(root: Path, host: str | None) -> Iterator[Cgroup]:
    for base in _bases(root, host):
        names = (name for name in find_directories(base.path) if _JOB.fullmatch(name))
        yield from (replace(base, path=base.path / name) for name in names)


def _bases(root: Path, host: str | None) -> Iterator[Cgroup]:
    """Yield the cgroups below which the jobs' cgroups are; only `host`'s if there is one."""
    for top in hierarchies(root):
        paths = list(_v2_bases(top.path) if top.version == 2 else _v1_bases(top.path))
        named = [path for path in paths if host and _names_host(path, host, top.version)]
        yield from (replace(top, path=path) for path in named or paths)


def _v2_bases(top: Path, depth: int = _SLICES_DEEP) -> Iterator[Path]:
    for name in find_directories(top):
        if _SCOPE.fullmatch(name):
            yield top / name
        elif depth and name.endswith(".slice"):
            yield from _v2_bases(top / name, depth - 1)


def _v1_bases(top: Path) -> Iterator[Path]:
    for slurm in find_directories(top):
        if _SLURM_V1.fullmatch(slurm):
            users = find_directories(top / slurm)
            yield from (top / slurm / user for user in users if user.startswith("uid_"))


def _names_host(base: Path, host: str, version: int) -> bool:
    if version == 2:
        return base.name == f"{host}_slurmstepd.scope"
    return base.parent.name == f"slurm_{host}"


# -- a job's steps and processes -----------------------------------------------------------------


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


def rank_in_environment(pid: int, root: Path) -> str:
    """Return the number that Slurm gave to the task, from the process's initial environment.

    It is empty if there is none. Use it only to group and to name processes: the job's user can
    write anything there.
    """
    try:
        environment = (root / "proc" / str(pid) / "environ").read_bytes()
    except OSError:
        return ""
    found = re.search(rb"(?:^|\0)SLURM_PROCID=([0-9]{1,10})(?:\0|$)", environment)
    return found[1].decode() if found else ""
