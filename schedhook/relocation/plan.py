"""Make the plan of a relocation, and refuse it if cpusets, room or the strategy do not allow it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from schedhook.host.topology import Topology
from schedhook.migration.move import Move, MovingProcess
from schedhook.migration.selection import LEFT_BY_STRATEGY, UNREACHABLE
from schedhook.relocation.settings import Settings
from schedhook.relocation.strategy import objection
from schedhook.values.errors import ProcessGoneError
from schedhook.values.fit import explain_no_room
from schedhook.values.model import NodeMap, Plan, ProcessPlan
from schedhook.values.sets import NodeSet
from schedhook.values.sizes import add_sizes, sum_sizes


def make_plan(settings: Settings, move: Move, topology: Topology, caller_nodes: NodeSet) -> Plan:
    """Return the plan for the processes of `move` as they were just read.

    `caller_nodes` are those of the caller's own cpuset: migrate_pages(2) silently narrows to them,
    and move_pages(2) allocates on the caller's behalf, so that it finds no free pages elsewhere.
    With `force` a plan that does not fit is not refused: what fits then moves, and the report says
    what stayed.
    """
    request, strategy = settings.request, settings.strategy
    processes, node_map = move.processes, move.node_map
    plans = tuple(
        ProcessPlan(
            pid=process.pid,
            command=process.target.command,
            residency=sum_sizes(part.selection.residency for part in process.parts),
            moves=_moves(process, node_map),
            kept=_kept(process),
            error=process.target.no_answer,
        )
        for process in processes
    )
    names = _destinations(node_map, plans)
    destinations = [topology.node(number) for number in names]
    plan = Plan(
        strategy=strategy.name,
        backend=settings.backend,
        node_map=node_map,
        processes=plans,
        job=request.job,
        free={node.number: node.memory_free for node in destinations},
        reclaimable={node.number: node.memory_reclaimable for node in destinations},
        dirty={node.number: node.memory_dirty for node in destinations},
        rooms=tuple(room for room in move.headroom.read() if room.nodes & names),
        pooled=_huge_bytes(processes, node_map),
    )
    refusal = _outside_callers_cpuset(plan, caller_nodes)
    if refusal is None and not strategy.changes_cpuset:
        refusal = _outside_cpuset(processes, plan)
    if refusal is None and not request.force:
        refusal = explain_no_room([plan])
    return replace(plan, refusal=refusal or objection(strategy, move))


def _moves(process: MovingProcess, node_map: NodeMap) -> dict[tuple[int, int], int]:
    if process.page_plan is not None:
        return dict(sorted(process.page_plan.moves.items()))
    found = sum_sizes(part.selection.on(node_map.sources) for part in process.parts)
    return {(old, node_map.moves[old]): size for old, size in sorted(found.items()) if size}


def _kept(process: MovingProcess) -> dict[str, int]:
    kept = sum_sizes(part.selection.kept for part in process.parts)
    if process.page_plan is not None:
        more = {
            LEFT_BY_STRATEGY: process.page_plan.kept,
            UNREACHABLE: process.page_plan.unreachable,
        }
        kept |= {why: size for why, size in more.items() if size}
    return kept


def _destinations(node_map: NodeMap, plans: Iterable[ProcessPlan]) -> NodeSet:
    return node_map.destinations | (new for plan in plans for _, new in plan.moves)


def _outside_callers_cpuset(plan: Plan, caller_nodes: NodeSet) -> str | None:
    lacking = NodeSet(new for _, new in plan.moves) - caller_nodes
    if not lacking:
        return None
    return (
        f"the cpuset of the calling process has node {caller_nodes} only, not {lacking}, and the"
        " kernel moves pages within the caller's cpuset; call from a cgroup that has all nodes"
    )


def _outside_cpuset(processes: Sequence[MovingProcess], plan: Plan) -> str | None:
    for process, its in zip(processes, plan.processes, strict=True):
        wanted = NodeSet(new for _, new in its.moves)
        if not wanted:
            continue
        try:
            allowed = process.target.allowed_nodes()
        except ProcessGoneError:
            continue
        if wanted - allowed:
            return (
                f"the cpuset of process {process.pid} allows node {allowed} only, not"
                f" {wanted - allowed}; widen its cgroup's cpuset.mems first"
            )
    return None


def _huge_bytes(
    processes: Sequence[MovingProcess], node_map: NodeMap
) -> Mapping[tuple[int, int], int]:
    total: dict[tuple[int, int], int] = {}
    moves = node_map.moves
    for process in processes:
        if process.page_plan is not None:
            found: Mapping[tuple[int, int], int] = process.page_plan.huge
        else:
            on_sources = sum_sizes(
                part.selection.huge_on(node_map.sources) for part in process.parts
            )
            found = {(old, moves[old]): size for old, size in on_sources.items()}
        add_sizes(total, found)
    return total
