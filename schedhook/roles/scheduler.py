"""What an adapter for a batch scheduler offers: its events, and a job's processes on this host."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from schedhook.host.cgroups import cgroup_of, frozen
from schedhook.host.processes import read_status
from schedhook.host.vanishing import read_living
from schedhook.roles.request import Relocate
from schedhook.values.errors import SchedhookError, UsageError
from schedhook.values.model import Event, Placement, PlacementOverride

_JOB = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@:+\[\]-]{0,127}")


class EventKind(StrEnum):
    """What an event means, whatever its scheduler calls it."""

    JOB_STARTED = "job-started"
    JOB_ENDED = "job-ended"
    STEP_STARTED = "step-started"
    RELOCATED = "relocated"
    """The job may have other processors or nodes now."""
    SUSPENDED = "suspended"
    RESUMING = "resuming"
    """It is about to go on, and waits for the answer."""
    RESUMED = "resumed"
    LOOK = "look"
    """Compare with the journal whatever there is; without a job: every job."""
    IGNORE = "ignore"


_KINDS: Mapping[str, EventKind] = {
    **{kind.value: kind for kind in EventKind},
    "prolog": EventKind.JOB_STARTED,
    "epilog": EventKind.JOB_ENDED,
    "task_prolog": EventKind.STEP_STARTED,
    "begin": EventKind.JOB_STARTED,
    "launch": EventKind.JOB_STARTED,
    "attach": EventKind.STEP_STARTED,
    "resize": EventKind.RELOCATED,
    "postsuspend": EventKind.SUSPENDED,
    "preresume": EventKind.RESUMING,
    "end": EventKind.JOB_ENDED,
    "periodic": EventKind.LOOK,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A part of a job that has a placement of its own: an MPI rank with its threads, say."""

    name: str
    """As the scheduler calls it: `0.1` for step 0, task 1, or `job` where it tells no tasks."""
    pids: tuple[int, ...]
    placement: Placement


class Scheduler:
    """One scheduler on this host: the base class of every adapter.

    `tasks` and `read_event` are an adapter's own; everything else has a default that is right for
    a scheduler of which nothing more is known. Every method may be called while jobs come and go,
    from several threads at a time.
    """

    name: str = ""
    """As in events, in the journal and on the command line."""
    kinds: Mapping[str, EventKind] = {}
    """Point → what it means, where the point's name alone does not say it; see `kind_of`."""
    can_reapply: bool = False
    """Whether `reapply` is there: whether a relocation lasts though the scheduler undoes it."""
    points_handled: frozenset[str] = frozenset()
    """Points whose events `handle` acts on."""

    def __init__(self, root: Path = Path("/")) -> None:
        self.root = root
        """Where the host's files lie (/proc, /sys): `/` on a live host."""

    # -- events ----------------------------------------------------------------------------------

    def read_event(self, point: str, environ: Mapping[str, str], data: bytes) -> Event:
        """Return what a hook of the scheduler sent.

        `point` is the hook's name (`prolog`, `resize`, …), `environ` its environment, `data` its
        standard input. Raise UsageError if it cannot be read.
        """
        raise NotImplementedError(f"the scheduler {self.name!r} has no hook {point!r}")

    def kind_of(self, event: Event) -> EventKind:
        """Return what an event means: by `kinds`, else what hooks of that name commonly mean."""
        kind = self.kinds.get(event.point)
        if kind is not None:
            return EventKind(kind)
        point = event.point.replace("-", "_")
        return _KINDS.get(point, _KINDS.get(event.point, EventKind.IGNORE))

    # -- jobs on this host -----------------------------------------------------------------------

    def jobs(self) -> tuple[str, ...]:
        """Return the jobs that run on this host; the watcher follows these. Default: none."""
        return ()

    def tasks(self, job: str) -> tuple[Task, ...]:
        """Return the job's tasks on this host, each process once; none if it has none here."""
        raise NotImplementedError(f"the scheduler {self.name!r} finds no tasks")

    def cgroups(self, job: str) -> tuple[Path, ...]:  # noqa: ARG002
        """Return the job's cgroups, topmost only, one for each hierarchy. Default: none."""
        return ()

    def owner(self, job: str) -> int | None:
        """Return the one user whose processes the job is, None if there is not exactly one."""
        # Not the owner of /proc/PID: that is root if the process may not be looked into.
        found = read_living(self._pids(job), lambda pid: read_status(pid, self.root).uid)
        owners = {uid for _, uid in found}
        return owners.pop() if len(owners) == 1 else None

    def suspended(self, job: str) -> bool:
        """Return whether the whole job is stopped or frozen. Default: whether every process is."""
        pids = self._pids(job)
        return bool(pids) and all(_is_stopped(pid, self.root) for pid in pids)

    def starting(self, job: str) -> bool:  # noqa: ARG002
        """Return whether the scheduler is just starting a part of the job, and binds its tasks
        later: nothing may be re-placed meanwhile. Default: never."""
        return False

    # -- placing a job again ---------------------------------------------------------------------

    def reapply(
        self,
        job: str,
        override: PlacementOverride,
        relocate: Relocate,
        homes: Mapping[str, Placement],
    ) -> str:
        """Give the job the processors, bindings and memory of `override` again, after the
        scheduler has undone it.

        `homes` tells where each task's memory was brought to last. Return one line for
        people. Raise SchedhookError if it failed and processors are as they were.
        """
        raise NotImplementedError(f"the scheduler {self.name!r} places no job again")

    def rebind(self, job: str, bound: Mapping[str, Placement]) -> bool:  # noqa: ARG002
        """Bind the tasks again that a changed cpuset has unbound, each to what stands in the place
        of its binding in `bound` (by task). Return whether any was. Default: none."""
        return False

    # -- inside ----------------------------------------------------------------------------------

    def _pids(self, job: str) -> set[int]:
        return {pid for task in self.tasks(job) for pid in task.pids}


def _is_stopped(pid: int, root: Path) -> bool:
    try:
        if read_status(pid, root).state in ("T", "t"):
            return True
        return frozen(cgroup_of(pid, root), root)
    except SchedhookError:  # it has ended, and does not run
        return True


def check_job(job: str, *, may_be_empty: bool = False) -> None:
    """UsageError for what no scheduler calls a job, and what could be taken for a path."""
    if not (_JOB.fullmatch(job) or (may_be_empty and not job)):
        raise UsageError(f"{job[:40]!r} is not a job's id")
