"""The pipeline that every entry point uses: plan, refuse or move, verify, report."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from schedhook.control.rollback import Rollback
from schedhook.control.undo import recover
from schedhook.host.topology import Topology
from schedhook.jobs.lookup import find_pids, find_tasks
from schedhook.migration.policies import count_policies
from schedhook.plugins.manager import Plugins
from schedhook.relocation.carry_out import carry_out
from schedhook.relocation.context import Context
from schedhook.relocation.home import find_way_home
from schedhook.relocation.make_move import make_move
from schedhook.relocation.members import Members
from schedhook.relocation.newcomers import refresh
from schedhook.relocation.nodes import check_named_nodes, find_route
from schedhook.relocation.notes import (
    BY_PAGE,
    POLICIES_BY_PAGE,
    RECOVERED,
    note_on_one_node,
    note_on_upper_bounds,
    notes_on_gpus,
    notes_on_map,
    notes_on_memory,
    notes_on_objects,
    notes_on_policies,
)
from schedhook.relocation.plan import make_plan
from schedhook.relocation.policies import foresee_policies_left
from schedhook.relocation.report import brief_report, plan_report
from schedhook.relocation.settings import resolve_settings
from schedhook.relocation.strategy import choose_nodes
from schedhook.roles.request import Progress, Request
from schedhook.values.config import Config
from schedhook.values.errors import RefusedError
from schedhook.values.model import NodeMap, Outcome, Policies, Report


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
    request, notes = context.settings.request, context.notes
    topology = context.backend.topology()
    check_named_nodes(request, topology)
    if (ended := _attach(context, topology)) is not None:
        return brief_report(context, ended, request.node_map or NodeMap(pairs={}))
    if why := _explain_refused_cpus(context):
        notes.append(why)
        return brief_report(context, Outcome.REFUSED, request.node_map or NodeMap(pairs={}))

    if request.home:
        context, route = find_way_home(context, topology)
    else:
        route = find_route(context, topology)
    move = make_move(context, route, topology)
    refresh(move, context.members, notes)
    notes += notes_on_map(route.node_map) + notes_on_memory(move.processes)
    if not move.is_exact:
        notes.append(note_on_upper_bounds())
    notes += notes_on_objects(move.unread_objects)

    ended = choose_nodes(context.settings.strategy, move, request.guidance, notes)
    if ended is not None:
        return brief_report(context, ended, route.node_map)
    plan = make_plan(context.settings, move, topology, context.backend.allowed_nodes())
    notes += notes_on_gpus(plan, topology)
    policies = foresee_policies_left(move)
    plan = replace(plan, policies=count_policies(policies))
    if plan.policies and route.node_map.mapper == BY_PAGE:
        context = _leave_policies(context)
    if plan.refusal:
        notes.append(plan.refusal)
        return plan_report(context, Outcome.REFUSED, plan)
    if request.dry_run:
        settings = context.settings  # policies can follow, or the kernel adapts them
        if settings.policies is Policies.LEAVE and not settings.strategy.changes_cpuset:
            notes += notes_on_policies(policies, route.destinations)
        return plan_report(context, Outcome.PLANNED, plan)
    return carry_out(context, move, plan)


def _leave_policies(context: Context) -> Context:
    """Return the context of a relocation that rebinds no policy, with a note if it was to."""
    settings = context.settings
    if settings.policies is Policies.REBIND:
        context.notes.append(POLICIES_BY_PAGE)
    return replace(context, settings=replace(settings, policies=Policies.LEAVE))


def _explain_refused_cpus(context: Context) -> str | None:
    """Return why the job's scheduler would mind its new processors; None with `force`."""
    request = context.settings.request
    if request.cpus is None or request.job is None or request.force:
        return None
    name, _ = find_tasks(context.plugins, request.job, request.scheduler, context.root)
    adapter = context.plugins.adapter(name, context.root)
    return adapter.explain_refused_cpus(request.job, request.cpus)


def _attach(context: Context, topology: Topology) -> Outcome | None:
    """Attach to the request's processes; return the outcome if that ends the relocation."""
    has_one_node = len(topology.memory_nodes) == 1
    try:
        context.members.attach_named()
    except RefusedError as refusal:
        if not has_one_node:  # else no right to move memory is needed
            context.notes.append(str(refusal))
            return Outcome.REFUSED
    if has_one_node:
        context.notes.append(note_on_one_node(topology.memory_nodes))
        return Outcome.NOTHING_TO_DO
    return None
