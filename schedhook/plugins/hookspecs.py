"""Every plug-in hook.

A plug-in is a module, or an object, with functions of these names that are marked `@hookimpl`; an
entry point of the group `schedhook` names it. docs/how-to/plugins.md shows a whole package.

The first four hooks *register*: they return descriptors, from which the configuration chooses by
name. `schedhook_doctor` *answers*. All others *observe*: what they return is ignored, and one that
fails is logged and skipped. A function may leave out arguments that it does not use.
"""

from __future__ import annotations

from pathlib import Path

import pluggy

from schedhook.plugins.descriptors import (
    BackendPlugin,
    MapperPlugin,
    SchedulerPlugin,
    StrategyPlugin,
)
from schedhook.plugins.findings import Finding
from schedhook.values.model import Event, Plan, Report

hookspec = pluggy.HookspecMarker("schedhook")
hookimpl = pluggy.HookimplMarker("schedhook")


@hookspec
def schedhook_schedulers() -> list[SchedulerPlugin]:  # type: ignore[empty-body]
    """Return adapters for batch schedulers.

    @hookimpl
    def schedhook_schedulers():
        return [SchedulerPlugin(name="flux", summary="Flux jobs", create=FluxScheduler)]
    """


@hookspec
def schedhook_mappers() -> list[MapperPlugin]:  # type: ignore[empty-body]
    """Return rules that pair old nodes with new ones.

    def pack(old, new, topology):
        return NodeMap(pairs=dict.fromkeys(old, min(new)), mapper="pack")

    @hookimpl
    def schedhook_mappers():
        return [MapperPlugin(name="pack", summary="everything to the first node", map=pack)]
    """


@hookspec
def schedhook_strategies() -> list[StrategyPlugin]:  # type: ignore[empty-body]
    """Return ways to move pages.

    @hookimpl
    def schedhook_strategies():
        return [StrategyPlugin(name="busy-first", summary="busy pages first", move=busy_first)]
    """


@hookspec
def schedhook_backends() -> list[BackendPlugin]:  # type: ignore[empty-body]
    """Return ways to reach processes and nodes.

    @hookimpl
    def schedhook_backends():
        return [BackendPlugin(name="remote", summary="through an agent", create=RemoteBackend)]
    """


@hookspec
def schedhook_doctor(root: Path) -> list[Finding]:  # type: ignore[empty-body]
    """Return what `schedhook doctor` should report about the plug-in's own set-up on this host.

    @hookimpl
    def schedhook_doctor(root):
        if (root / "etc/flux/system").exists():
            return [ok("flux", "installed")]
        return [note("flux", "not installed", "install flux-core, or remove the plug-in")]
    """


@hookspec
def schedhook_event(event: Event) -> None:
    """Observe an event that an adapter has read, before schedhook acts on it."""


@hookspec
def schedhook_before_migrate(plan: Plan) -> None:
    """Observe a plan before the first page moves; raise MigrationRefused("why") to refuse it."""


@hookspec
def schedhook_after_migrate(report: Report) -> None:
    """Observe the report of a relocation that began, however it ended."""


@hookspec
def schedhook_job_started(event: Event) -> None:
    """Observe that a job has started on this host."""


@hookspec
def schedhook_job_ended(event: Event) -> None:
    """Observe that a job has ended on this host; its processes may be gone."""
