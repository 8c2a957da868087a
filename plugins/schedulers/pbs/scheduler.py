"""OpenPBS as a scheduler. Most runs of schedhook have no business with it, so this stays small."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from schedhook import SchedulerPlugin, hookimpl

if TYPE_CHECKING:
    from schedhook.plugins.findings import Finding
    from schedhook.roles.scheduler import Scheduler


def create(root: Path) -> Scheduler:
    """The adapter, for the host whose files lie below `root`."""
    from schedhook_plugins.schedulers.pbs.adapter import PbsScheduler  # noqa: PLC0415

    return PbsScheduler(root)


@hookimpl
def schedhook_doctor(root: Path) -> list[Finding]:
    from schedhook_plugins.schedulers.pbs import doctor  # noqa: PLC0415 - only for the doctor

    return list(doctor.examine(root))


@hookimpl
def schedhook_schedulers() -> list[SchedulerPlugin]:
    return [SchedulerPlugin(name="pbs", summary="OpenPBS jobs", create=create)]
