"""The pipeline that every entry point uses: plan, refuse or move, verify, report."""

from __future__ import annotations

import time
from pathlib import Path

from schedhook.control.rollback import Rollback
from schedhook.control.undo import recover
from schedhook.host.topology import Topology
from schedhook.jobs.lookup import find_pids, find_tasks
from schedhook.plugins.manager import Plugins
from schedhook.relocation.carry_out import carry_out
from schedhook.relocation.context import Context
from schedhook.relocation.home import find_way_home
from schedhook.relocation.members import Members
from schedhook.relocation.nodes import Route, check_named_nodes, find_route
from schedhook.relocation.notes import RECOVERED, notes_on_policies
from schedhook.relocation.prepare import open_move, plan_move
from schedhook.relocation.report import plan_report
from schedhook.relocation.settings import resolve_settings
from schedhook.roles.request import Progress, Request
from schedhook.values.config import Config
from schedhook.values.errors import RefusedError
from schedhook.values.model import Outcome, Policies, Report


def relocate(
    request: Request,
    config: Config,
    plugins: Plugins,
    *,
    root: Path = Path("/"),
    progress: Progress | None = None,
) -> Report:
    """Carry out a relocation, or only plan it if the request says `dry_run`.

    Once the request is understood, every end is a report: a refusal, and also a failure during
    the move, with what had moved by then. Raise UsageError or PluginError for a request that
    cannot be understood, ProcessGoneError if a process that it names does not exist.
    """
    settings = resolve_settings(request, config, plugins)
    backend = plugins.backend(settings.backend).create(root)
    members = Members(
        request, backend, lambda job: find_pids(plugins, job, request.scheduler, root)
    )
    began, notes = time.monotonic(), list[str]()
    if recover():
        notes.append(RECOVERED)
    with Rollback() as rollback, members:
        report = _relocate(
            Context(
                settings=settings,
                backend=backend,
                plugins=plugins,
                members=members,
                rollback=rollback,
                root=root,
                progress=progress,
                began=began,
                notes=notes,
            )
        )
        rollback.commit()
    return report


def _relocate(context: Context) -> Report:
    request = context.settings.request
    topology = context.backend.topology()
    check_named_nodes(request, topology)
    opened = open_move(context, topology, _find_way)
    planned = opened if isinstance(opened, Report) else plan_move(opened)
    if isinstance(planned, Report):
        return planned
    context, move, plan = planned.context, planned.move, planned.plan
    if not request.dry_run:
        return carry_out(context, move, plan)
    settings = context.settings  # policies can follow, or the kernel adapts them
    if settings.policies is Policies.LEAVE and not settings.strategy.changes_cpuset:
        context.notes.extend(notes_on_policies(planned.policies, move.destinations))
    return plan_report(context, Outcome.PLANNED, plan)


def _find_way(context: Context, topology: Topology) -> tuple[Context, Route]:
    """Return the request's route; raise RefusedError if the job's scheduler would mind."""
    if why := _explain_refused_cpus(context):
        raise RefusedError(why)
    if context.settings.request.home:
        return find_way_home(context, topology)
    return context, find_route(context, topology)


def _explain_refused_cpus(context: Context) -> str | None:
    """Return why the job's scheduler would mind its new processors; None with `force`."""
    request = context.settings.request
    if request.cpus is None or request.job is None or request.force:
        return None
    name, _ = find_tasks(context.plugins, request.job, request.scheduler, context.root)
    adapter = context.plugins.adapter(name, context.root)
    return adapter.explain_refused_cpus(request.job, request.cpus)
