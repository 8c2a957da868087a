"""Where Slurm keeps a job's processes: its control groups, versions 1 and 2, and what they tell.

    v2  system.slice/[HOST_]slurmstepd.scope/job_N/step_S/user/{task_M,task_special}
    v1  slurm[_HOST]/uid_U/job_N/step_S[/task_M], in each hierarchy that Slurm uses

slurmstepd, which is Slurm's own, lives in `step_S/slurm` (v2) or among the others (v1). Slurm 22.05
puts all of a step's tasks in `task_special`, so the number of a task comes from its environment.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from schedhook.host.cgroups import Cgroup, hierarchies, memberships, pids
from schedhook.host.listing import find_directories
from schedhook.host.vanishing import read_living
from schedhook.values.errors import ProcessGoneError, SchedhookError
from schedhook.values.sets import CpuSet

_JOB = re.compile(r"job_([0-9]{1,10})")
_STEP = re.compile(r"step_([A-Za-z0-9+_.]{1,64})")
_TASK = re.compile(r"task_([0-9]{1,10})")
_SCOPE = re.compile(r"(?:.+_)?slurmstepd\.scope")
_SLURM_V1 = re.compile(r"slurm(?:_.+)?")
# Only slices, which systemd makes: in a user's own service anybody may make cgroups.
_JOB_IN_NAME = re.compile(
    r"(?:/[^/]+\.slice)*/(?:[^/]+_)?slurmstepd\.scope/job_([0-9]{1,10})(?:/.*)?"
    r"|/slurm(?:_[^/]+)?/uid_[0-9]+/job_([0-9]{1,10})(?:/.*)?",
    re.DOTALL,
)
_OLD_NAMES = {"4294967294": "batch", "4294967295": "extern", "4294967290": "interactive"}
_SLICES_DEEP = 2
SLURMSTEPD = "slurmstepd"


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A process of a job, as its cgroup tells."""

    step: str
    """`0`, `batch`, `extern`, `interactive`."""
    task: str = ""
    """The task's number, empty where the cgroup has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessInfo:
    """What /proc tells of a process of a job."""

    name: str
    state: str
    uid: int
    parent: int
    cpus: CpuSet
    """Those of all its threads together."""


def job_ids(root: Path, host: str | None = None) -> tuple[str, ...]:
    """The jobs that have a cgroup on this host, in ascending order."""
    found = {path.name.removeprefix("job_") for path, _ in _job_directories(root, host)}
    return tuple(sorted(found, key=int))


def job_cgroups(job: str, root: Path, host: str | None = None) -> tuple[Cgroup, ...]:
    """The job's cgroups, one for each hierarchy. Where several slurmds share a kernel, as on test
    systems, one for each that has a part of the job, or for the one called `host`."""
    if not re.fullmatch(r"[0-9]{1,10}", job):
        return ()
    return tuple(
        Cgroup(path=path, version=top.version, mount=top.mount)
        for path, top in _job_directories(root, host, job)
    )


def _job_directories(
    root: Path, host: str | None, job: str | None = None
) -> Iterator[tuple[Path, Cgroup]]:
    for top in hierarchies(root):
        bases = list(_v2_bases(top.path) if top.version == 2 else _v1_bases(top.path))
        named = [base for base in bases if host and _names_host(base, host, top.version)]
        for base in named or bases:
            if job is None:
                names = (each for each in find_directories(base) if _JOB.fullmatch(each))
                yield from ((base / each, top) for each in names)
            elif (base / f"job_{job}").is_dir():
                yield base / f"job_{job}", top


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


def job_of(pid: int, root: Path) -> str | None:
    """The job that a process belongs to, None where it belongs to none (or is gone)."""
    with contextlib.suppress(SchedhookError):
        for _, name in memberships(pid, root):
            if found := _JOB_IN_NAME.fullmatch(name):
                return found[1] or found[2]
    return None


def step_directories(job: Cgroup) -> dict[str, Path]:
    """The cgroup of each step, Slurm's own processes included, by the step's name."""
    steps = ((name, _STEP.fullmatch(name)) for name in find_directories(job.path))
    return {_OLD_NAMES.get(step[1], step[1]): job.path / name for name, step in steps if step}


def step_cgroups(job: Cgroup) -> dict[str, Path]:
    """The cgroup below which a step's own processes are, by the step's name."""
    steps = step_directories(job)
    return {step: path / "user" if job.version == 2 else path for step, path in steps.items()}


def members(job: Cgroup, root: Path) -> dict[int, Member]:
    """The job's processes in one hierarchy, without those that are Slurm's by their place."""
    found: dict[int, Member] = {}
    for step, path in step_cgroups(job).items():
        at = Cgroup(path=path, version=job.version, mount=job.mount)
        found |= dict.fromkeys(pids(at, root), Member(step=step))
        for name in find_directories(path):
            task = _TASK.fullmatch(name)
            if task:
                at = Cgroup(path=path / name, version=job.version, mount=job.mount)
                found |= dict.fromkeys(pids(at, root), Member(step=step, task=task[1]))
    return found


def starting_steps(job: Cgroup, root: Path) -> tuple[str, ...]:
    """Steps whose tasks Slurm has yet to bind and start, by the look of them: they have a
    slurmstepd that stands where a task will be, or nobody but slurmstepd. Do not wait for them
    without end: a step that ends slowly looks so too, and users name processes as they like."""
    found = []
    for step, path in step_directories(job).items():
        if not step.isdigit():
            continue
        own = _of_step(Cgroup(path=path, version=job.version, mount=job.mount), root)
        theirs = {pid for pid, info in own.items() if info.name == SLURMSTEPD}
        if theirs and (theirs == set(own) or any(own[pid].parent in theirs for pid in theirs)):
            found.append(step)
    return tuple(found)


def _of_step(step: Cgroup, root: Path) -> dict[int, ProcessInfo]:
    return dict(read_living(pids(step, root), lambda pid: read_process(pid, root)))


def merge(each: Iterable[Mapping[int, Member]]) -> dict[int, Member]:
    """Of several hierarchies: what names the task counts for more."""
    found: dict[int, Member] = {}
    for some in each:
        for pid, member in some.items():
            if pid not in found or (member.task and not found[pid].task):
                found[pid] = member
    return found


def read_process(pid: int, root: Path) -> ProcessInfo:
    """ProcessGoneError, also for one that only waits to be waited for."""
    fields = _status(root / "proc" / str(pid) / "status")
    try:
        state = fields[b"State"][:1].decode()
        if state in ("Z", "X") and fields[b"Threads"] == b"1":
            raise ProcessGoneError(f"process {pid} has ended")
        return ProcessInfo(
            name=fields[b"Name"].decode("utf-8", "replace"),
            state=state,
            uid=int(fields[b"Uid"].split()[0]),
            parent=int(fields.get(b"PPid", b"0")),
            cpus=_cpus_of_threads(root / "proc" / str(pid) / "task") or _cpus(fields),
        )
    except (KeyError, ValueError, IndexError):
        raise ProcessGoneError(f"process {pid} tells nothing of itself") from None


def _cpus_of_threads(directory: Path) -> CpuSet:
    cpus: set[int] = set()
    for thread in find_directories(directory):
        try:
            cpus |= _cpus(_status(directory / thread / "status"))
        except (ProcessGoneError, ValueError):
            continue
    return CpuSet(cpus)


def _cpus(fields: Mapping[bytes, bytes]) -> CpuSet:
    return CpuSet.parse(fields.get(b"Cpus_allowed_list", b"").decode())


def _status(path: Path) -> dict[bytes, bytes]:
    try:
        lines = path.read_bytes().split(b"\n")
    except (FileNotFoundError, ProcessLookupError):
        raise ProcessGoneError(f"{path} is gone") from None
    except OSError as error:
        raise SchedhookError(f"cannot read {path}: {error.strerror}") from error
    pairs = (line.partition(b":") for line in lines)
    return {key: value.strip() for key, _, value in pairs}


def rank_in_environment(pid: int, root: Path) -> str:
    """The number that Slurm gave to the task, from the process's first environment; empty where
    there is none. It decides how processes are grouped and named, nothing else: the job's user may
    write there what he likes."""
    try:
        environment = (root / "proc" / str(pid) / "environ").read_bytes()
    except OSError:
        return ""
    found = re.search(rb"(?:^|\0)SLURM_PROCID=([0-9]{1,10})(?:\0|$)", environment)
    return found[1].decode() if found else ""
