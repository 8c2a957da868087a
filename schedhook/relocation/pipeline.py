"""The pipeline that every entry point uses: plan, refuse or move, verify, report."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from schedhook.control.rollback import Rollback, recover
from schedhook.host.topology import Topology
from schedhook.jobs.lookup import find_pids
from schedhook.migration.move import Move, MoveOptions
from schedhook.migration.processes import MovingProcess
from schedhook.migration.selection import Selection
from schedhook.migration.throttle import choose_threads
from schedhook.plugins.manager import Plugins
from schedhook.relocation.carry_out import carry_out
from schedhook.relocation.context import Context
from schedhook.relocation.members import Members
from schedhook.relocation.newcomers import refresh
from schedhook.relocation.nodes import map_nodes
from schedhook.relocation.plan import make_plan
from schedhook.relocation.report import brief_report, plan_report
from schedhook.relocation.settings import resolve_settings
from schedhook.relocation.strategy import choose_nodes
from schedhook.roles.request import Progress, Request
from schedhook.values.config import Config
from schedhook.values.errors import ProcessGoneError, RefusedError
from schedhook.values.model import NodeMap, Outcome, Report

_MIB = 1 << 20


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
        notes.append("an earlier relocation was killed; its changes were rolled back first")
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
    if (ended := _attach(context, topology)) is not None:
        return brief_report(context, ended, request.node_map or NodeMap(pairs={}))

    node_map = map_nodes(context.settings, context.plugins, topology, context.members, context.root)
    move = _make_move(context, node_map, topology)
    refresh(move, context.members, notes)
    notes += _notes_on_nodes(node_map) + _notes_on_memory(move.processes)

    ended = choose_nodes(context.settings.strategy, move, request.guidance, notes)
    if ended is not None:
        return brief_report(context, ended, node_map)
    plan = make_plan(context.settings, move, topology, context.backend.allowed_nodes())
    if plan.refusal:
        notes.append(plan.refusal)
        return plan_report(context, Outcome.REFUSED, plan)
    if request.dry_run:
        return plan_report(context, Outcome.PLANNED, plan)
    return carry_out(context, move, plan)


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
        context.notes.append(
            f"this host has one NUMA node with memory ({topology.memory_nodes}):"
            " there is nowhere to move to"
        )
        return Outcome.NOTHING_TO_DO
    return None


def _make_move(context: Context, node_map: NodeMap, topology: Topology) -> Move:
    settings, request = context.settings, context.settings.request
    threads, cpus = choose_threads(
        settings.threads,
        request.cpus or topology.cpus_of(node_map.destinations),
        topology.cpus_of(node_map.sources),
    )
    return Move(
        backend=context.backend,
        node_map=node_map,
        processes=context.members.processes,
        selection=Selection(
            kinds=settings.kinds,
            shared=settings.shared,
            may_move_shared=context.backend.may_move_shared(),
        ),
        options=MoveOptions(
            threads=threads,
            cpus=cpus,
            bandwidth=settings.bandwidth,
            limits=settings.limits,
            retry=settings.retry,
            reserve=settings.reserve,
            sweep_leftovers=request.sweep_leftovers,
        ),
        sources=None if node_map.pairs else topology.memory_nodes,
        guidance=request.guidance,
        member_pids=context.members.pids,
        cgroup=request.cgroup,
        plugin_options=settings.plugin_options,
        root=context.root,
        notes=context.notes,
    )


def _notes_on_nodes(node_map: NodeMap) -> list[str]:
    return [node_map.note] if node_map.note else []


def _notes_on_memory(processes: Sequence[MovingProcess]) -> list[str]:
    """Return notes on memory that the bytes of the report leave out."""
    notes, swapped = list[str](), 0
    for process in processes:
        with suppress(ProcessGoneError):
            swapped += process.target.swapped()
    if swapped:
        notes.append(
            f"{swapped / _MIB:.1f} MiB are in swap, on no node, and are not counted; they return"
            " to nodes that the process may use at that time"
        )
    return notes + [
        f"process {process.pid} has no memory of its own: it uses that of process"
        f" {process.memory_owner_pid}, with which it is counted"
        for process in processes
        if process.memory_owner_pid is not None
    ]
