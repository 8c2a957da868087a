"""Bring the off-node memory of several jobs home together, so that they can trade places.

`relocate` refuses a job whose nodes have no room. Here the memory that leaves a node makes room for
what belongs there, also if no node has room for all of either: see schedhook.values.rotation.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from schedhook.control.rollback import Rollback
from schedhook.host.page_sizes import BASE_PAGE
from schedhook.host.pagesets import Pageset, find_largest_pagesets
from schedhook.host.topology import Topology
from schedhook.jobs.lookup import find_pids
from schedhook.migration.headroom import Headroom
from schedhook.migration.move import Move
from schedhook.plugins.manager import Plugins
from schedhook.relocation.carry_out import remember
from schedhook.relocation.context import Context, Transit
from schedhook.relocation.home import AT_HOME, WaysHome, choosing
from schedhook.relocation.members import Members
from schedhook.relocation.nodes import Route, check_named_nodes
from schedhook.relocation.notes import note_on_what_is_left_out
from schedhook.relocation.prepare import Opened, Planned, open_move, plan_move
from schedhook.relocation.report import brief_report, final_report, plan_report
from schedhook.relocation.rotate import Rotating, rotate
from schedhook.relocation.settings import resolve_settings
from schedhook.relocation.shared_by_jobs import SharedByJobs, choose_among_jobs
from schedhook.relocation.watch_room import watch_room
from schedhook.roles.request import Progress, Request
from schedhook.values.config import Config
from schedhook.values.errors import ProcessGoneError, RefusedError, UsageError
from schedhook.values.model import NodeMap, Outcome, Report
from schedhook.values.room import Room
from schedhook.values.rotation import Chunk, Demand, Rotation, plan_rotation
from schedhook.values.sets import CpuSet, NodeSet

_IN_TRANSIT = 4
"""While memory passes through a node, so small a part of the reserve is kept: in the end the node
is as full as it was, or has the whole reserve."""
_NO_MAP = NodeMap(pairs={})


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebalance:
    """What became of each job, or would."""

    reports: Sequence[Report] = ()
    """In the order of the requests."""
    moves: Sequence[Mapping[tuple[int, int], int]] = ()
    """The off-node bytes of each job, in the same order, by (node, its node of home)."""
    chunks: Sequence[Chunk] = ()
    """What moves, in the planned order; `Demand.job` is the index of the job's report."""


def rebalance(
    requests: Sequence[Request],
    config: Config,
    plugins: Plugins,
    *,
    root: Path = Path("/"),
    progress: Progress | None = None,
) -> Rebalance:
    """Bring the off-node memory of the requests' jobs home together; with `dry_run` only plan it.

    The requests are those of one job each, or of some of its processes, and differ in `job`,
    `scheduler` and `pids` only. Every job gets a report, whatever becomes of the others. Raise
    UsageError or PluginError for what is wrong with all of them.
    """
    if not requests:
        return Rebalance()
    settings = resolve_settings(requests[0], config, plugins)
    backend = plugins.backend(settings.backend).create(root)
    topology = backend.topology()
    check_named_nodes(requests[0], topology)
    with ExitStack() as stack:
        rollback = stack.enter_context(Rollback())

        def make_context(request: Request) -> Context:
            # What does not fit by itself may fit together with the others.
            own = resolve_settings(replace(request, home=True, force=True), config, plugins)
            members = Members(
                request, backend, lambda job: find_pids(plugins, job, request.scheduler, root)
            )
            return Context(
                settings=own,
                backend=backend,
                plugins=plugins,
                members=stack.enter_context(members),
                rollback=rollback,
                root=root,
                progress=progress,
                began=time.monotonic(),
                notes=[],
            )

        contexts = [make_context(each) for each in requests]
        transit = _watch_transit(contexts[0])
        contexts = [replace(context, transit=transit) for context in contexts]
        return _rebalance(contexts, topology)


def _watch_transit(context: Context) -> Transit:
    """Return the room for memory that passes through: less the part of the reserve that is kept.

    A node that is fuller than that may become as full as it is.
    """
    headroom, cpus = watch_room(context, _NO_MAP), os.sched_getaffinity(0)
    reserve = context.settings.reserve // _IN_TRANSIT
    kept = {room.nodes: min(reserve, max(0, room.size - room.claimed)) for room in headroom.read()}

    def freed() -> Mapping[int, Pageset]:
        if context.backend.is_simulation:
            return {}
        return find_largest_pagesets(cpus, context.root, BASE_PAGE)

    def read() -> Sequence[Room]:
        found = freed()
        return [
            replace(
                room,
                size=room.size + sum(found[node].size for node in room.nodes & found.keys()),
                reserve=kept.get(room.nodes, reserve),
            )
            for room in headroom.read()
        ]

    def cpus_for(node: int) -> CpuSet:
        if context.settings.threads:
            return CpuSet()
        largest = freed().get(node)
        return CpuSet({largest.cpu if largest else min(cpus)})

    return Transit(headroom=Headroom(read), cpus_for=cpus_for)


def _rebalance(contexts: Sequence[Context], topology: Topology) -> Rebalance:
    reports: dict[int, Report] = {}
    plans = _plan_all(contexts, topology, reports)
    dry_run = contexts[0].settings.request.dry_run
    jobs = {
        number: Rotating(planned.move, _allowed(planned, topology))
        for number, planned in plans.items()
    }
    rotation = _agree(contexts[0], plans, jobs, reports)
    going = {number: plans[number] for number in plans if number not in reports}
    if dry_run:
        for number, planned in going.items():
            if size := rotation.left_out_of(number):
                planned.context.notes.append(note_on_what_is_left_out(size))
            reports[number] = plan_report(planned.context, Outcome.PLANNED, planned.plan)
    else:
        for (number, old, new, waits), size in rotation.left_out.items():
            jobs[number].leave_out((old, new, waits), size)
        _carry_out(going, {number: jobs[number] for number in going}, reports)
    numbers = range(len(contexts))
    return Rebalance(
        reports=[reports[number] for number in numbers],
        moves=[plans[number].plan.moves if number in plans else {} for number in numbers],
        chunks=rotation.chunks,
    )


def _plan_all(
    contexts: Sequence[Context], topology: Topology, reports: dict[int, Report]
) -> dict[int, Planned]:
    """Return the plan of each job with off-node memory; add the reports of the others."""
    opened: dict[int, Opened] = {}
    homes: dict[int, WaysHome] = {}
    for number, context in enumerate(contexts):
        found = _open(context, topology)
        if isinstance(found, Report):
            reports[number] = found
        else:
            homes[number], opened[number] = found
    shared = SharedByJobs({number: each.move for number, each in opened.items()})
    plans = {}
    for number, each in opened.items():
        context = choosing(each.context, choose_among_jobs(number, homes, shared))
        planned = plan_move(replace(each, context=context))
        if isinstance(planned, Report):
            reports[number] = planned
        elif not planned.plan.bytes_planned:
            context.notes.append(AT_HOME)
            reports[number] = brief_report(context, Outcome.NOTHING_TO_DO, _NO_MAP)
        else:
            plans[number] = planned
    return plans


def _open(context: Context, topology: Topology) -> tuple[WaysHome, Opened] | Report:
    found: list[WaysHome] = []

    def find_way(context: Context, topology: Topology) -> tuple[Context, Route]:
        found.append(WaysHome.find(context, topology))
        return choosing(context, found[0].choose), found[0].route()

    try:
        opened = open_move(context, topology, find_way)
    except (UsageError, ProcessGoneError) as error:  # it has ended
        context.notes.append(str(error))
        return brief_report(context, Outcome.NOTHING_TO_DO, _NO_MAP)
    return opened if isinstance(opened, Report) else (found[0], opened)


def _allowed(planned: Planned, topology: Topology) -> NodeSet:
    """Return the nodes on which all processes of a job may have memory for a while."""
    allowed = topology.default_nodes & planned.context.backend.allowed_nodes()
    for process in planned.move.processes:
        with suppress(ProcessGoneError):
            allowed = allowed & process.target.allowed_nodes()
    return allowed


def _agree(
    context: Context,
    plans: Mapping[int, Planned],
    jobs: Mapping[int, Rotating],
    reports: dict[int, Report],
) -> Rotation:
    """Return the rotation of those jobs that fit and to which no observer objects.

    Add the reports of the others. The observers see no plan of a dry run.
    """
    ask, asked = not context.settings.request.dry_run, set[int]()
    while True:
        going = [number for number in plans if number not in reports]
        rotation = _plan_rotation({number: jobs[number] for number in going}, context)
        refusals = dict(rotation.refused)
        for number in going if ask else ():
            if number not in refusals and number not in asked:
                asked.add(number)
                if why := _explain_objection(plans[number]):
                    refusals[number] = why
        for number, why in refusals.items():
            refused = plans[number].context
            refused.notes.append(why)
            reports[number] = plan_report(refused, Outcome.REFUSED, plans[number].plan)
        if refusals.keys() <= rotation.refused.keys():
            return rotation


def _plan_rotation(jobs: Mapping[int, Rotating], context: Context) -> Rotation:
    assert context.transit is not None
    rooms = context.transit.headroom.read()
    reserve = context.settings.reserve
    demands = [each for number, job in jobs.items() for each in job.demands(number)]

    def can_leave(demand: Demand, size: int) -> bool:
        backlog = jobs[demand.job].backlog
        return backlog.can_leave_out((demand.old, demand.new, demand.waits), size)

    kept = [replace(room, reserve=reserve) for room in rooms]
    return plan_rotation(demands, rooms, kept, can_leave=can_leave)


def _explain_objection(planned: Planned) -> str | None:
    """Return why an observer refuses the plan; None if none does."""
    try:
        planned.context.plugins.notify("schedhook_before_migrate", plan=planned.plan)
    except RefusedError as refusal:
        return str(refusal)
    return None


def _carry_out(
    plans: Mapping[int, Planned], jobs: Mapping[int, Rotating], reports: dict[int, Report]
) -> None:
    """Move the memory of the jobs, and add their reports."""
    if not plans:
        return
    for planned in plans.values():
        remember(planned.move, planned.context.root)
    _report_progress(plans)
    first = next(iter(plans.values())).context
    assert first.transit is not None
    rotate(jobs, first.settings.retry, first.transit.cpus_for)
    for number, planned in plans.items():
        context, move, job = planned.context, planned.move, jobs[number]
        if left_out := job.bytes_left_out:
            context.notes.append(note_on_what_is_left_out(left_out))
        report = final_report(context, move, planned.plan, [move], job.failure, left_out=left_out)
        context.plugins.notify("schedhook_after_migrate", report=report)
        reports[number] = report


def _report_progress(plans: Mapping[int, Planned]) -> None:
    """Report the progress of all jobs as one."""
    total = sum(planned.plan.bytes_planned for planned in plans.values())
    moved: dict[int, int] = {}

    def report(move: Move, progress: Progress) -> None:
        def add(size: int, _: int) -> None:
            moved[id(move)] = size
            progress(min(total, sum(moved.values())), total)

        move.report_progress(add, total)

    for planned in plans.values():
        if planned.context.progress:
            report(planned.move, planned.context.progress)
