"""Build the reports that a relocation can end with."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import replace

from schedhook.host.topology import Topology
from schedhook.migration.move import Move, MovingProcess
from schedhook.migration.policies import count_policies
from schedhook.relocation.context import Context
from schedhook.relocation.notes import note_on_empty_plan, note_on_reserve, notes_on_policies
from schedhook.relocation.policies import read_policies_left
from schedhook.relocation.verify import judge, verify
from schedhook.values.model import NodeMap, Outcome, Plan, ProcessReport, Report
from schedhook.values.reasons import Reason
from schedhook.values.sizes import sum_sizes


def brief_report(context: Context, outcome: Outcome, node_map: NodeMap) -> Report:
    """Return a report without bytes, for a relocation that ended before its plan was made."""
    settings = context.settings
    return Report(
        outcome=outcome,
        strategy=settings.strategy.name,
        backend=settings.backend,
        node_map=node_map,
        job=settings.request.job,
        seconds=time.monotonic() - context.began,
        not_answering=tuple(
            process.pid for process in context.members.processes if process.target.no_answer
        ),
        notes=tuple(context.notes),
    )


def plan_report(context: Context, outcome: Outcome, plan: Plan) -> Report:
    """Return the report of a plan that is not carried out: `outcome` is PLANNED or REFUSED."""
    if outcome is Outcome.PLANNED and not plan.bytes_planned:
        context.notes.append(note_on_empty_plan(plan))
    reasons = {Reason.SKIPPED.value: plan.bytes_planned} if plan.bytes_planned else {}
    return replace(
        brief_report(context, outcome, plan.node_map),
        bytes_planned=plan.bytes_planned,
        bytes_left=plan.bytes_planned,
        left_by_reason=reasons,
        kept=_bytes_kept(plan),
        policies_left=plan.policies,
        processes=tuple(
            ProcessReport(
                pid=its.pid,
                command=its.command,
                residency_before=its.residency,
                residency_after=its.residency,
                bytes_moved=0,
                bytes_left=its.bytes_planned,
                error=its.error,
            )
            for its in plan.processes
        ),
        plan=plan,
    )


def final_report(
    context: Context,
    move: Move,
    plan: Plan,
    pending: Sequence[Move],
    failure: str | None,
    *,
    left_out: int = 0,
) -> Report:
    """Read residency again, and return the report of what it shows.

    `pending` are the steps of the move that were not settled; it is its own only step as a rule.
    `failure` is the error that ended the move early, if any; it becomes the last note. `left_out`
    bytes were not to move, for the sake of the reserve, as a note says.
    """
    ended = context.members.ended
    processes, by_reason = verify(pending, ended, failure)
    targets = [each.target for each in (*move.processes, *ended)]
    context.notes.extend(each.mistaken for each in targets if each.mistaken)
    silent = [each.no_answer for each in targets if each.no_answer]
    context.notes.extend(why for why in silent if why not in context.notes)
    left = read_policies_left(move)
    context.notes.extend(notes_on_policies(left, move.destinations))
    if by_reason.get(Reason.RESERVE, 0) > left_out:
        context.notes.append(note_on_reserve(plan, move.headroom.read()))
    if failure is not None:
        context.notes.append(failure)
    moved = sum(each.bytes_moved for each in processes)
    stayed = sum(by_reason.values())
    outcome = judge(moved, by_reason, failure)
    if silent and outcome is not Outcome.FAILED:
        outcome = Outcome.PARTIAL
    return replace(
        brief_report(context, outcome, move.node_map),
        bytes_planned=moved + stayed,
        bytes_moved=moved,
        bytes_left=stayed,
        left_by_reason=by_reason,
        bytes_reclaimed=_bytes_reclaimed(plan, [*move.processes, *ended], move.topology()),
        kept=_bytes_kept(plan),
        policies_left=count_policies(left),
        attempts=move.attempts,
        processes=tuple(processes),
    )


def _bytes_reclaimed(plan: Plan, processes: Iterable[MovingProcess], now: Topology) -> int:
    """Return the bytes of cache that the kernel dropped on the destinations since the plan.

    What arrived on a node and did not come out of its free memory was freed there. More than the
    cache has shrunk by is another process's doing.
    """
    total = 0
    arrived: dict[int, int] = {}
    for part in (part for process in processes for part in process.parts):
        for (old, new), size in part.moved.items():
            arrived[new] = arrived.get(new, 0) + size
            arrived[old] = arrived.get(old, 0) - size
    for number, size in arrived.items():
        if number in plan.free and number in now.nodes:
            node = now.nodes[number]
            from_free = plan.free[number] - node.memory_free
            shrunk = plan.reclaimable[number] - node.memory_reclaimable
            total += max(0, min(size - from_free, shrunk))
    return total


def _bytes_kept(plan: Plan) -> dict[str, int]:
    return sum_sizes(its.kept for its in plan.processes)
