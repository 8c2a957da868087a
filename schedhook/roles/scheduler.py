"""What an adapter for a batch scheduler offers: its events, and a job's processes on this host."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from schedhook.host.cgroups import cgroup_of, frozen
from schedhook.host.processes import read_start_time, read_status
from schedhook.host.vanishing import read_living
from schedhook.roles.notes import JobNotes, MemoryNotes
from schedhook.roles.request import Relocate
from schedhook.values.errors import SchedhookError, UsageError
from schedhook.values.model import Event, Placement, PlacementOverride
from schedhook.values.sets import CpuSet, NodeSet

_JOB = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@:+,%\[\]-]{0,127}")


class EventKind(StrEnum):
    """What an event means, whatever its scheduler calls it."""

    JOB_STARTED = "job-started"
    JOB_ENDED = "job-ended"
    STEP_STARTED = "step-started"
    RELOCATED = "relocated"
    """The job may have other CPUs or nodes now."""
    SUSPENDED = "suspended"
    RESUMING = "resuming"
    """The job is about to resume, and the scheduler waits for the answer."""
    RESUMED = "resumed"
    LOOK = "look"
    """Compare the job's placement with the journal; without a job: every job's."""
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
    """The scheduler's name, `0.1` for step 0, task 1; `job` if the scheduler tells no tasks."""
    pids: tuple[int, ...]
    placement: Placement


@dataclass(frozen=True, slots=True, kw_only=True)
class JobDescription:
    """What people call a job. Its user may have chosen any part of it."""

    alias: str = ""
    """How people write the job, if not by its id: Slurm's `36_2` for job 38."""
    name: str = ""
    """The name that its user gave it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replacement:
    """What an adapter did to give a stopped job other CPUs."""

    summary: str
    """One line for people."""
    moved: bool = False
    """Whether the job has other CPUs now and its memory is on their nodes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOrigin:
    """Where a job comes from, as the scheduler told, and never its user's environment."""

    queue: str | None = None
    """Slurm's partition, PBS's queue; None if the scheduler has not told it."""
    account: str | None = None
    choice: str | None = None
    """What the job asks for by the scheduler's own means: `off`, `gentle`, `follow`."""


class Scheduler:
    """One scheduler on this host: the base class of every adapter.

    An adapter must implement `tasks` and `read_event`; every other method has a default that suits
    a scheduler of which nothing more is known. Every method may be called while jobs come and go,
    from several threads at a time.
    """

    name: str = ""
    """As in events, in the journal and on the command line."""
    kinds: Mapping[str, EventKind] = {}
    """Point → what it means, for points whose name alone does not say it; see `kind_of`."""
    can_reapply: bool = False
    """Whether `reapply` is implemented: a relocation can last although the scheduler undoes it."""

    def __init__(self, root: Path = Path("/")) -> None:
        self.root = root
        """The directory that holds the host's /proc and /sys: `/` on a live host."""
        self.notes: JobNotes = MemoryNotes()
        """What `record_event` remembers; schedhook replaces it by notes that its journal keeps."""

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

    def record_event(self, event: Event) -> None:
        """Write in `notes` what a hook's event tells and nothing else on this host does.

        Called once for each event of a hook, before anything else is done about it, except at the
        job's end. Default: nothing is remembered.
        """

    def jobs_told(self, event: Event) -> frozenset[str] | None:  # noqa: ARG002
        """Return all jobs that the scheduler has here, if an event without a job tells them.

        A job that neither it nor `jobs` names has ended. Default: None, the event does not tell.
        """
        return None

    # -- jobs on this host -----------------------------------------------------------------------

    def jobs(self) -> tuple[str, ...]:
        """Return the jobs that run on this host; the watcher follows these. Default: none."""
        return ()

    def resolve(self, text: str) -> str:
        """Return the id of the job that people call `text`; `text` itself if none is called so.

        Ids are what `jobs` returns and events have; every other method is called with ids only.
        Raise UsageError, which lists the jobs, if `text` names several. Default: people write ids.
        """
        return text

    def describe(self, job: str) -> JobDescription | None:  # noqa: ARG002
        """Return what people call the job; None, the default, if nothing here tells."""
        return None

    def origin(self, job: str) -> JobOrigin:  # noqa: ARG002
        """Return the job's queue and account, as far as the scheduler told. Default: unknown."""
        return JobOrigin()

    def first_process(self, job: str) -> int | None:
        """Return the process that speaks for the job: the oldest. None if it has none here."""
        pids = read_living(self._pids(job), lambda pid: read_start_time(pid, self.root))
        return min(pids, key=lambda each: (each[1], each[0]), default=(None, 0))[0]

    def tasks(self, job: str) -> tuple[Task, ...]:
        """Return the job's tasks on this host, each process once; none if it has none here."""
        raise NotImplementedError(f"the scheduler {self.name!r} finds no tasks")

    def granted(self, job: str) -> Mapping[str, Placement]:  # noqa: ARG002
        """Return the placement of each task to which the scheduler granted nodes, by task name.

        Memory on other nodes does not belong there. A job may have such a placement before its
        first process starts. Default: none, nodes only follow from CPUs.
        """
        return {}

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

    def time_left(self, job: str) -> float | None:  # noqa: ARG002
        """Return the seconds until the scheduler ends the job at the latest; None if unknown.

        The scheduler may be asked, but not often. Default: None.
        """
        return None

    def starting(self, job: str) -> bool:  # noqa: ARG002
        """Return whether the scheduler is starting a part of the job, and binds its tasks later.

        The job must not be re-placed before that. Default: never.
        """
        return False

    def explain_refused_cpus(self, job: str, cpus: CpuSet) -> str | None:  # noqa: ARG002
        """Return why jobs would come to harm if this one got these CPUs; None if none would.

        A scheduler may give CPUs that it did not grant the job to another one. Default: None.
        """
        return None

    # -- placing a job again ---------------------------------------------------------------------

    def reapply(
        self,
        job: str,
        override: PlacementOverride,
        relocate: Relocate,
        homes: Mapping[str, Placement],
    ) -> str:
        """Give the job the CPUs, bindings and memory of an override that the scheduler has undone.

        `homes` tells where each task's memory was brought to last. Return one line for
        people. Raise SchedhookError if it failed and CPUs are as they were.
        """
        raise NotImplementedError(f"the scheduler {self.name!r} places no job again")

    def rebind(self, job: str, bound: Mapping[str, Placement]) -> bool:  # noqa: ARG002
        """Bind the tasks again that a changed cpuset has unbound; return whether any was.

        Each gets the CPUs that correspond to its earlier binding in `bound` (by task). Default:
        none.
        """
        return False

    # -- a suspended job -------------------------------------------------------------------------

    def allow_nodes(self, job: str, nodes: NodeSet) -> bool:  # noqa: ARG002
        """Let a suspended job's memory lie on `nodes` too; return whether a cpuset was widened.

        A second call may name more nodes. `restore_nodes` undoes all of them, also in another
        process. Raise RefusedError if it must not be widened; then the memory stays. Default: the
        scheduler does not confine memory, nothing is widened.
        """
        return False

    def restore_nodes(self, job: str) -> None:
        """Undo `allow_nodes`, once the memory has left those nodes; nothing if there is nothing."""

    def resolve_sharing(
        self,
        job: str,  # noqa: ARG002
        parked: Mapping[int, int],  # noqa: ARG002
        relocate: Relocate,  # noqa: ARG002
        *,
        replace: bool,  # noqa: ARG002
    ) -> Replacement | None:
        """Find out whether a job that is about to resume would share CPUs with other jobs.

        If so and if `replace` is true, give it free CPUs and move its memory to their nodes; all of
        it or nothing. `parked` maps the nodes whose memory is parked to those on which it is.
        Return what was found or done, None if there is nothing to say. Default: None.
        """
        return None

    def finish_interrupted(
        self,
        job: str,  # noqa: ARG002
        parked: Mapping[int, int],  # noqa: ARG002
        relocate: Relocate,  # noqa: ARG002
    ) -> Replacement | None:
        """Finish a replacement whose process was killed; return None if there is none.

        Called before anything else is done about the job. Default: None.
        """
        return None

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
    """Raise UsageError for a name that no job has, and that could be taken for a path."""
    if not (_JOB.fullmatch(job) or (may_be_empty and not job)):
        raise UsageError(f"{job[:40]!r} is not a job's id, such as 4711 or 36_2")
