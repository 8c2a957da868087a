"""The control groups of Slurm's jobs on this host, and the number of each job.

    v2  [SLICE/…][HOST_]slurmstepd.scope/{job_N,SLUID}
    v1  slurm[_HOST]/uid_U/job_N, in each hierarchy that Slurm uses

The scope is below slices that systemd makes and, if slurmd runs in a container, below that of the
container. Slurm 26.05 names a job by its SLUID unless cgroup.conf has CgroupJobIdPaths=yes. Then
only slurmstepd knows the number, and its title tells it: `slurmstepd: [4711.0]`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from schedhook.host.cgroups import Cgroup, has_processes, hierarchies, pids
from schedhook.host.listing import find_directories
from schedhook.host.processes import read_command, read_status
from schedhook.values.errors import SchedhookError

_JOB = re.compile(r"job_([0-9]{1,10})")
_SLUID = re.compile(r"s[0-9A-HJKMNP-TV-Z]{13}")
"""The digits of print_sluid() in Slurm's src/common/sluid.c."""
_STEP = re.compile(r"step_[A-Za-z0-9+_.]{1,64}")
_SCOPE = re.compile(r"(?:.+_)?slurmstepd\.scope")
_SLURM_V1 = re.compile(r"slurm(?:_.+)?")
_ABOVE_SCOPES = re.compile(
    r".+\.slice"  # by systemd, also for the pods of Kubernetes
    r"|(?:cri-containerd|crio|docker|libpod)-.+\.scope"
    r"|kubepods|burstable|besteffort|pod[0-9a-f_-]+|docker|[0-9a-f]{64}"  # by cgroupfs drivers
)
_DEEPEST = 8
_TITLE = re.compile(r"slurmstepd: \[([1-9][0-9]{0,9})(?:[. ][^\]]*)?\] *")
_CACHE_SECONDS = 2.0


class JobCgroups:
    """The jobs' control groups of the host whose files are below `root`.

    If several slurmds share a kernel, `host` selects the jobs of the one with that name.
    """

    def __init__(self, root: Path, host: str | None = None) -> None:
        self._root = root
        self._host = host
        self._bases: tuple[float, list[Cgroup]] = (0.0, [])
        """(when to search again, the cgroup of each slurmd's jobs)."""
        self._numbers: dict[Path, str] = {}
        """The jobs of cgroups that a SLUID names; it is never used for another job."""

    def jobs(self) -> tuple[str, ...]:
        """Return the numbers of the jobs that have a cgroup here, in ascending order."""
        return tuple(sorted({job for job, _ in self._all() if job is not None}, key=int))

    def running(self) -> tuple[str, ...]:
        """Return the numbers of the jobs that have a process here, in ascending order."""
        found: set[str] = set()
        for job, each in self._all():
            # A process is in one cgroup of each hierarchy: one of them is enough.
            if job and job not in found and has_processes(each):
                found.add(job)
        return tuple(sorted(found, key=int))

    def of(self, job: str) -> tuple[Cgroup, ...]:
        """Return the job's cgroups, one for each hierarchy and each slurmd that runs a part."""
        if not re.fullmatch(r"[0-9]{1,10}", job):
            return ()
        return tuple(self._named(job))

    def unnumbered(self) -> tuple[str, ...]:
        """Return the SLUIDs of the jobs whose number cannot be found out."""
        return tuple(sorted({each.path.name for number, each in self._all() if number is None}))

    def sluids(self) -> dict[str, str]:
        """Return the job's number by SLUID, for those cgroups that a SLUID names."""
        return {each.path.name: job for job, each in self._all() if job and _is_sluid(each)}

    def _named(self, job: str) -> Iterator[Cgroup]:
        """Yield the job's cgroups, without a look at those of all other jobs."""
        for base, above in self._find_parents():
            if (path := above / f"job_{job}").is_dir():
                yield replace(base, path=path)
            for name in find_directories(above) if base.version == 2 else ():
                if _SLUID.fullmatch(name):
                    cgroup = replace(base, path=above / name)
                    if self._number_of(cgroup) == job:
                        yield cgroup

    def _all(self) -> Iterator[tuple[str | None, Cgroup]]:
        """Yield (number, cgroup) of every job."""
        for base, above in self._find_parents():
            for name in find_directories(above):
                cgroup = replace(base, path=above / name)
                if job := _JOB.fullmatch(name):
                    yield job[1], cgroup
                elif base.version == 2 and _SLUID.fullmatch(name):
                    yield self._number_of(cgroup), cgroup

    # -- which job a SLUID names -----------------------------------------------------------------

    def _number_of(self, job: Cgroup) -> str | None:
        if job.path not in self._numbers:
            number = _read_number(job, self._root)
            if number is None:
                return None
            self._numbers = {path: its for path, its in self._numbers.items() if path.is_dir()}
            self._numbers[job.path] = number
        return self._numbers[job.path]

    # -- where to look ---------------------------------------------------------------------------

    def _find_parents(self) -> Iterator[tuple[Cgroup, Path]]:
        """Yield (cgroup of a slurmd's jobs, directory that has the jobs' own)."""
        for base in self._find_bases():
            for above in [base.path] if base.version == 2 else _users(base.path):
                yield base, above

    def _find_bases(self) -> list[Cgroup]:
        """Return the cgroup of each slurmd's jobs, found again every few seconds."""
        due, bases = self._bases
        if not bases or time.monotonic() >= due:
            bases = list(self._search())
            self._bases = (time.monotonic() + _CACHE_SECONDS, bases)
        return bases

    def _search(self) -> Iterator[Cgroup]:
        for top in hierarchies(self._root):
            paths = list(_v2_bases(top.path) if top.version == 2 else _v1_bases(top.path))
            named = [path for path in paths if self._host and _names(path, self._host, top.version)]
            yield from (replace(top, path=path) for path in named or paths)


def _is_sluid(cgroup: Cgroup) -> bool:
    return _SLUID.fullmatch(cgroup.path.name) is not None


def _read_number(job: Cgroup, root: Path) -> str | None:
    """Return the number that a slurmstepd of the job has in its title, None if there is none."""
    for step in find_directories(job.path):
        if _STEP.fullmatch(step):
            leaf = replace(job, path=job.path / step / "slurm")
            for pid in pids(leaf, root):
                with suppress(SchedhookError):  # it has ended
                    if number := _read_title(pid, leaf, root):
                        return number
    return None


def _read_title(pid: int, leaf: Cgroup, root: Path) -> str | None:
    """Return the job's number in the title of a slurmstepd, None if the process is none.

    Any process can choose its title, and write into its environment. Only root's processes are in
    this leaf. The checks come last: by then the number may be that of another process.
    """
    title = _TITLE.fullmatch(read_command(pid, root))
    if title is None or read_status(pid, root).uid != 0 or pid not in pids(leaf, root):
        return None
    return title[1]


def _v2_bases(top: Path, depth: int = _DEEPEST, owner: int | None = None) -> Iterator[Path]:
    """Yield the scopes of slurmds below `top` that belong to root or the owner of the hierarchy.

    A user who may make cgroups, in a container for example, can give them any name.
    """
    owner = _owner(top) if owner is None else owner
    for name in find_directories(top):
        if _SCOPE.fullmatch(name):
            if _owner(top / name) in (0, owner):
                yield top / name
        elif depth and _ABOVE_SCOPES.fullmatch(name):
            yield from _v2_bases(top / name, depth - 1, owner)


def _owner(path: Path) -> int:
    try:
        return path.stat().st_uid
    except OSError:  # it has been removed
        return -1


def _v1_bases(top: Path) -> Iterator[Path]:
    return (top / name for name in find_directories(top) if _SLURM_V1.fullmatch(name))


def _users(base: Path) -> Iterator[Path]:
    """Yield the cgroups of the users of version 1, each made for the user's first job."""
    return (base / name for name in find_directories(base) if name.startswith("uid_"))


def _names(base: Path, host: str, version: int) -> bool:
    """Return whether `base` belongs to the slurmd called `host`."""
    if version == 2:
        return base.name == f"{host}_slurmstepd.scope"
    return base.name == f"slurm_{host}"
