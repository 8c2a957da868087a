"""OpenPBS as a scheduler: the plug-in hooks, and the adapter that the agent calls."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from schedhook import SchedulerPlugin, hookimpl
from schedhook.roles.scheduler import EventKind, JobOrigin, Replacement, Scheduler, Task
from schedhook.values.errors import RefusedError, UsageError
from schedhook_plugins.schedulers.pbs import events
from schedhook_plugins.schedulers.pbs.jobs import PbsJobs
from schedhook_plugins.schedulers.pbs.notes import PbsNotes

if TYPE_CHECKING:
    from schedhook.plugins.findings import Finding
    from schedhook.roles.request import Relocate
    from schedhook.values.model import Event, Placement
    from schedhook.values.sets import CpuSet, NodeSet

NAME = events.NAME
_TASK = "job"
_HARM = "PBS gives others to other jobs, and may kill running jobs if that fails; --force insists"


class PbsScheduler(Scheduler):
    """OpenPBS on this host; see schedhook.roles.scheduler.Scheduler."""

    name = NAME
    kinds: Mapping[str, EventKind] = {
        "begin": EventKind.JOB_STARTED,
        "launch": EventKind.LOOK,
        "attach": EventKind.STEP_STARTED,
        "resize": EventKind.RELOCATED,
        "postsuspend": EventKind.SUSPENDED,
        "preresume": EventKind.RESUMING,
        "end": EventKind.JOB_ENDED,
        "startup": EventKind.LOOK,
        "periodic": EventKind.LOOK,
    }

    def __init__(self, root: Path = Path("/")) -> None:
        super().__init__(root)
        self._pbs_notes = PbsNotes(lambda: self.notes)
        self._jobs = PbsJobs(root, self._pbs_notes)

    # -- events ----------------------------------------------------------------------------------

    def read_event(self, point: str, _environ: Mapping[str, str], data: bytes) -> Event:
        """Return what contrib/pbs/schedhook.PY wrote; see `events.read_event`."""
        if point not in self.kinds:
            raise UsageError(f"PBS has no hook {point!r}; known hooks: {', '.join(self.kinds)}")
        return events.read_event(point, data)

    def record_event(self, event: Event) -> None:
        """Record what PBS tells: vnodes, sessions, and whether the job is suspended."""
        events.record_event(event, self._pbs_notes, self.root)

    def jobs_told(self, event: Event) -> frozenset[str] | None:
        """Return the jobs that exechost_periodic lists."""
        return events.jobs_told(event)

    # -- jobs on this host -----------------------------------------------------------------------

    def jobs(self) -> tuple[str, ...]:
        """Return the jobs that have a cgroup here, and those of which a session lives."""
        return self._jobs.names()

    def resolve(self, text: str) -> str:
        """Return `12[3].server` for `12[3]`; see `PbsJobs.resolve`."""
        return self._jobs.resolve(text)

    def tasks(self, job: str) -> tuple[Task, ...]:
        """Return one task with all of the job's processes: PBS knows no parts of a job here."""
        job = self._jobs.full_id(job)
        pids = self._jobs.pids(job)
        placement = self._jobs.placement(job, pids) if pids else None
        return (Task(name=_TASK, pids=pids, placement=placement),) if placement else ()

    def granted(self, job: str) -> Mapping[str, Placement]:
        """Return the job's placement if its cpuset or its vnodes name nodes."""
        placement = self._jobs.granted(self._jobs.full_id(job))
        return {_TASK: placement} if placement else {}

    def origin(self, job: str) -> JobOrigin:
        """Return the queue, account and resource `schedhook` that PBS's hooks have told."""
        told = self._pbs_notes.told(self._jobs.full_id(job))
        return JobOrigin(queue=told.queue, account=told.account, choice=told.choice)

    def cgroups(self, job: str) -> tuple[Path, ...]:
        """Return the job's cgroups, that of the cpuset first if hierarchies are apart."""
        return tuple(cgroup.path for cgroup in self._jobs.cgroups(self._jobs.full_id(job)))

    def suspended(self, job: str) -> bool:
        """Return whether PBS has told that the job is suspended, and not yet that it resumes."""
        return self._pbs_notes.told(self._jobs.full_id(job)).suspended

    def _pids(self, job: str) -> set[int]:
        # Without placements: the agent asks for a job's owner in a thread that must not wait.
        return set(self._jobs.pids(self._jobs.full_id(job)))

    def explain_refused_cpus(self, job: str, cpus: CpuSet) -> str | None:
        """Return a reason for CPUs of vnodes that PBS has not granted the job; see PbsJobs."""
        job = self._jobs.full_id(job)
        try:
            outside = cpus - self._jobs.granted_cpus(job)
        except RefusedError as error:
            return f"{error}; {_HARM}"
        if not outside:
            return None
        return f"PBS has not granted job {job} the vnode of processors {outside}; {_HARM}"

    # -- suspended jobs --------------------------------------------------------------------------

    def allow_nodes(self, job: str, nodes: NodeSet) -> bool:
        """Widen the job's cpuset.mems, if it has one of its own."""
        from schedhook_plugins.schedulers.pbs import fence  # noqa: PLC0415 - for few events

        return fence.allow_nodes(self._jobs, job, nodes)

    def restore_nodes(self, job: str) -> None:
        """Narrow the job's cpuset.mems to what it was before `allow_nodes`."""
        from schedhook_plugins.schedulers.pbs import fence  # noqa: PLC0415

        fence.restore_nodes(self._jobs, job)

    def resolve_sharing(
        self, job: str, parked: Mapping[int, int], relocate: Relocate, *, replace: bool
    ) -> Replacement | None:
        """Find jobs that run on this one's CPUs; if wanted, give it CPUs of free nodes."""
        from schedhook_plugins.schedulers.pbs.replacing import Replacer  # noqa: PLC0415

        return Replacer(self._jobs, relocate).resolve(job, parked, replace=replace)

    def finish_interrupted(
        self, job: str, parked: Mapping[int, int], relocate: Relocate
    ) -> Replacement | None:
        """Finish giving a job other CPUs."""
        if self._pbs_notes.replacing(job) is None:
            return None
        from schedhook_plugins.schedulers.pbs.replacing import Replacer  # noqa: PLC0415

        return Replacer(self._jobs, relocate).finish(job, parked)


@hookimpl
def schedhook_doctor(root: Path) -> list[Finding]:
    """Check PBS's hook on this host."""
    from schedhook_plugins.schedulers.pbs import doctor  # noqa: PLC0415 - only for the doctor

    return list(doctor.examine(root))


@hookimpl
def schedhook_schedulers() -> list[SchedulerPlugin]:
    """Provide the scheduler `pbs`."""
    return [SchedulerPlugin(name=NAME, summary="OpenPBS jobs", create=PbsScheduler)]
