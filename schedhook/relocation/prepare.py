"""The steps of a relocation before anything moves: attach, find the nodes, read, plan."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from schedhook.host.topology import Topology
from schedhook.migration.move import Move
from schedhook.migration.policies import ProcessPolicies, count_policies
from schedhook.relocation.context import Context
from schedhook.relocation.make_move import make_move
from schedhook.relocation.newcomers import refresh
from schedhook.relocation.nodes import Route
from schedhook.relocation.notes import (
    BY_PAGE,
    POLICIES_BY_PAGE,
    note_on_one_node,
    note_on_upper_bounds,
    notes_on_gpus,
    notes_on_map,
    notes_on_memory,
    notes_on_objects,
)
from schedhook.relocation.plan import make_plan
from schedhook.relocation.policies import foresee_policies_left
from schedhook.relocation.report import brief_report, plan_report
from schedhook.relocation.strategy import choose_nodes
from schedhook.values.errors import RefusedError
from schedhook.values.model import NodeMap, Outcome, Plan, Policies, Report

FindWay = Callable[[Context, Topology], tuple[Context, Route]]
"""Returns the route of a request, and the context to go on with; raises RefusedError."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A relocation whose processes are held and whose memory was read."""

    context: Context
    route: Route
    move: Move
    topology: Topology


@dataclass(frozen=True, slots=True)
class Planned:
    """A relocation that can be carried out."""

    context: Context
    move: Move
    plan: Plan
    policies: Sequence[ProcessPolicies]
    """The memory policies that will stay behind."""


def open_move(context: Context, topology: Topology, find_way: FindWay) -> Opened | Report:
    """Attach to the request's processes and read their memory; return a report if that ends it."""
    named = context.settings.request.node_map or NodeMap(pairs={})
    if (ended := _attach(context, topology)) is not None:
        return brief_report(context, ended, named)
    try:
        context, route = find_way(context, topology)
    except RefusedError as refusal:
        context.notes.append(str(refusal))
        return brief_report(context, Outcome.REFUSED, named)
    move = make_move(context, route, topology)
    refresh(move, context.members, context.notes)
    return Opened(context, route, move, topology)


def plan_move(opened: Opened) -> Planned | Report:
    """Let the strategy choose, and make the plan; return a report if it is refused."""
    context, move, topology = opened.context, opened.move, opened.topology
    notes, settings = context.notes, context.settings
    node_map = opened.route.node_map
    notes += notes_on_map(node_map) + notes_on_memory(move.processes)
    if not move.is_exact:
        notes.append(note_on_upper_bounds())
    notes += notes_on_objects(move.unread_objects)
    ended = choose_nodes(settings.strategy, move, settings.request.guidance, notes)
    if ended is not None:
        return brief_report(context, ended, node_map)
    plan = make_plan(settings, move, topology, context.backend.allowed_nodes())
    notes += notes_on_gpus(plan, topology)
    policies = foresee_policies_left(move)
    plan = replace(plan, policies=count_policies(policies))
    if plan.policies and node_map.mapper == BY_PAGE:
        context = _leave_policies(context)
    if plan.refusal:
        notes.append(plan.refusal)
        return plan_report(context, Outcome.REFUSED, plan)
    return Planned(context, move, plan, policies)


def _leave_policies(context: Context) -> Context:
    """Return the context of a relocation that rebinds no policy, with a note if it was to."""
    settings = context.settings
    if settings.policies is Policies.REBIND:
        context.notes.append(POLICIES_BY_PAGE)
    return replace(context, settings=replace(settings, policies=Policies.LEAVE))


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
