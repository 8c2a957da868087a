"""The role: Slurm as a `Scheduler` of this host, and the plug-in hooks that offer it.

This module stands above the rest of the package: `adapter` reads what Slurm says and what the host
shows, `reapply` and `rebinding` place a job again.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from schedhook import SchedulerPlugin, hookimpl
from schedhook.roles.scheduler import EventKind, JobDescription, JobOrigin, Scheduler, Task
from schedhook.values.model import Event, Placement
from schedhook_plugins.schedulers.slurm import adapter
from schedhook_plugins.schedulers.slurm.adapter import HostJobs
from schedhook_plugins.schedulers.slurm.origin import read_origin, record_origin

if TYPE_CHECKING:
    from schedhook.plugins.findings import Finding
    from schedhook.roles.request import Relocate
    from schedhook.values.model import PlacementOverride
    from schedhook_plugins.schedulers.slurm.time_limit import TimeLimits


class Slurm(Scheduler):
    """Slurm on this host.

    Slurm confines a job's processors, not its memory, and binds tasks by affinity: a task's
    processors are those that its threads may use, and its nodes follow from them.
    """

    name = adapter.NAME
    kinds: Mapping[str, EventKind] = adapter.KINDS
    can_reapply = True

    def __init__(self, root: Path = Path("/"), host: str | None = None) -> None:
        super().__init__(root)
        self._here = HostJobs(root, host)
        self._limits: TimeLimits | None = None

    def read_event(self, point: str, environ: Mapping[str, str], _data: bytes) -> Event:
        return adapter.read_event(point, environ)

    def record_event(self, event: Event) -> None:
        if event.point == "prolog":
            record_origin(event, self.notes)

    def origin(self, job: str) -> JobOrigin:
        return read_origin(job, self.notes)

    def first_process(self, job: str) -> int | None:
        return self._here.first_process(job)

    def jobs(self) -> tuple[str, ...]:
        return self._here.jobs()

    def cgroups(self, job: str) -> tuple[Path, ...]:
        return tuple(cgroup.path for cgroup in self._here.cgroups(job))

    def resolve(self, text: str) -> str:
        return self._here.resolve(text)

    def describe(self, job: str) -> JobDescription | None:
        return self._here.describe(job)

    def tasks(self, job: str) -> tuple[Task, ...]:
        return self._here.tasks(job)

    def owner(self, job: str) -> int | None:
        return self._here.owner(job)

    def suspended(self, job: str) -> bool:
        return self._here.suspended(job)

    def time_left(self, job: str) -> float | None:
        from schedhook_plugins.schedulers.slurm.time_limit import TimeLimits  # noqa: PLC0415 - rare

        ends = self._here.ends_at(job)
        if ends is not None:
            return max(0.0, ends - time.time())
        if self.root != Path("/"):
            return None  # the controller knows nothing of a made-up host
        if self._limits is None:
            self._limits = TimeLimits()
        return self._limits.left(job)

    def starting(self, job: str) -> bool:
        return self._here.starting(job)

    def reapply(
        self,
        job: str,
        override: PlacementOverride,
        relocate: Relocate,
        homes: Mapping[str, Placement],
    ) -> str:
        from schedhook_plugins.schedulers.slurm.reapply import reapply  # noqa: PLC0415 - rare

        return reapply(self._here, job, override, relocate, homes)

    def rebind(self, job: str, bound: Mapping[str, Placement]) -> bool:
        from schedhook_plugins.schedulers.slurm.rebinding import rebind  # noqa: PLC0415 - rare

        return rebind(self._here, job, bound)


@hookimpl
def schedhook_doctor(root: Path) -> list[Finding]:
    """Report what is wrong with Slurm's set-up on this host."""
    from schedhook_plugins.schedulers.slurm import doctor  # noqa: PLC0415 - only for the doctor

    return list(doctor.examine(root))


@hookimpl
def schedhook_schedulers() -> list[SchedulerPlugin]:
    """Offer Slurm."""
    return [SchedulerPlugin(name=adapter.NAME, summary="Slurm jobs", create=Slurm)]
