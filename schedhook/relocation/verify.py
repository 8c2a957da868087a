"""Read residency again after a move, and give a reason for all memory that stayed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from schedhook.migration.move import Move, MovingProcess
from schedhook.migration.page_plan import PagePlan
from schedhook.migration.processes import MovingMemory, MovingObject
from schedhook.migration.selection import ProcessSelection
from schedhook.migration.snapshot import Snapshot
from schedhook.migration.unreachable import unreachable_bytes
from schedhook.values.errors import ProcessGoneError
from schedhook.values.model import NodeMap, Outcome, ProcessReport
from schedhook.values.reasons import Reason
from schedhook.values.sets import NodeSet
from schedhook.values.sizes import add_sizes, sum_sizes

_STRAY_SHARE = 0.001
_STRAY_BYTES = 64 << 10
"""Memory that a busy job may put on a source node during the move without making the outcome
partial: a share of the moved bytes, or this many bytes if that is more."""
_GONE = "exited, left its cgroup or became another program during the relocation"


def settle(step: Move) -> None:
    """Keep what a finished step left behind, before the next one brings memory to its nodes."""
    step.refresh()
    _count_along(step)
    for part in (part for process in step.processes for part in process.parts):
        if not part.gone:
            add_sizes(part.settled, _left(part, [step], None))
        part.left = {}


def verify(
    pending: Sequence[Move], ended: Iterable[MovingProcess], failure: str | None
) -> tuple[list[ProcessReport], dict[str, int]]:
    """Read residency again; return each process's report, and the bytes that stayed by reason.

    `pending` are the steps that were not settled: the last one, unless `failure`, the error that
    ended the move early, has kept others from their turn. `ended` are processes that the move no
    longer includes.
    """
    move = pending[0]
    move.refresh()
    _count_along(move)
    reports = []
    by_reason: dict[str, int] = {}
    for process in [*move.processes, *ended]:
        alive = not process.gone and process.target.alive()
        left = dict[str, int]()
        if alive and process.page_plan is not None:
            left = _left_by_plan(process, process.page_plan, move.sources, failure)
        elif alive:
            for part in process.parts:
                add_sizes(left, part.settled)
                add_sizes(left, _left(part, pending, failure))
        if process.unmapped:
            add_sizes(left, {Reason.UNMAPPED.value: process.unmapped})
        add_sizes(by_reason, left)
        reports.append(
            ProcessReport(
                pid=process.pid,
                command=process.target.command,
                residency_before=sum_sizes(
                    part.before.residency for part in process.parts if part.before
                ),
                residency_after=sum_sizes(
                    part.selection.residency for part in process.parts if alive
                ),
                bytes_moved=sum(sum(part.moved.values()) for part in process.parts),
                bytes_left=sum(left.values()),
                error=None if alive else process.target.no_answer or _GONE,
            )
        )
    return reports, dict(sorted(by_reason.items(), key=lambda item: -item[1]))


def judge(moved: int, by_reason: Mapping[str, int], failure: str | None) -> Outcome:
    """Return the outcome of a move of `moved` bytes that left the bytes of `by_reason`."""
    if failure is not None:
        return Outcome.FAILED
    strays = by_reason.get(Reason.APPEARED, 0)
    stayed = sum(by_reason.values()) - strays
    if stayed or strays > min(moved, max(_STRAY_BYTES, _STRAY_SHARE * moved)):
        return Outcome.PARTIAL
    return Outcome.COMPLETE if moved else Outcome.NOTHING_TO_DO


def explain(left: int, reasons: Mapping[str, int], rest: str) -> dict[str, int]:
    """Return the reasons, adjusted so that they add up to `left`, the bytes that residency shows.

    Bytes that no failure accounts for get the reason `rest`. If fewer bytes stayed than failed
    (the job freed them, or something else moved them), the largest reasons shrink.
    """
    result = {reason: size for reason, size in reasons.items() if size}
    surplus = sum(result.values()) - left
    if surplus < 0:
        result[rest] = result.get(rest, 0) - surplus
    while surplus > 0:
        largest = max(result, key=lambda reason: result[reason])
        cut = min(surplus, result[largest])
        result[largest] -= cut
        surplus -= cut
        if not result[largest]:
            del result[largest]
    return result


def _count_along(move: Move) -> None:
    """Count as moved what moved with huge pages, of processes and of their objects."""
    _count_moved_along(move)
    for process in move.processes:
        for each in process.objects:
            _count_object_moved_along(each, move.node_map)


def _count_moved_along(move: Move) -> None:
    """Count as moved what moved along with a folio in the sweep of another area.

    If two areas have parts of one folio, the second area's sweep finds its part moved.
    """
    if move.node_map.overlaps:
        return
    for old, new in move.node_map.moves.items():
        arrived = {
            process.pid: _arrived(process.before, process.selection, old, new)
            for process in move.processes
            if process.before is not None and process.page_plan is None
        }
        # What one process's sweep has moved may be mapped by another process, and counted there.
        missing = sum(arrived.values()) - sum(
            process.moved.get((old, new), 0) for process in move.processes
        )
        for process in move.processes:
            moved = process.moved.get((old, new), 0)
            more = min(missing, arrived.get(process.pid, 0) - moved)
            if more > 0:
                process.moved[old, new] = moved + more
                missing -= more


def _arrived(before: ProcessSelection, after: ProcessSelection, old: int, new: int) -> int:
    """Return the counted bytes that areas of this process lost on `old` and gained on `new`."""
    now = {area.start: area.residency for area in after.areas}
    still = dict[int, int]()
    for item in after.selected:
        still[item.area.start] = still.get(item.area.start, 0) + item.counted.get(old, 0)
    total = 0
    for item in before.selected:
        start = item.area.start
        lost = item.counted.get(old, 0) - still.get(start, 0)
        gained = now.get(start, {}).get(new, 0) - item.area.residency.get(new, 0)
        total += max(0, min(lost, gained))
    return total


def _count_object_moved_along(part: MovingObject, node_map: NodeMap) -> None:
    """Count as moved what moved with huge pages of which a process maps a part."""
    if part.before is None or node_map.overlaps:
        return
    was = sum_sizes(area.residency for area in part.before.areas)
    now = sum_sizes(area.residency for area in part.selection.areas)
    for old, new in node_map.moves.items():
        lost = was.get(old, 0) - now.get(old, 0)
        gained = now.get(new, 0) - was.get(new, 0)
        more = min(lost, gained) - part.moved.get((old, new), 0)
        if more > 0:
            part.moved[old, new] = part.moved.get((old, new), 0) + more


def _left(part: MovingMemory, pending: Sequence[Move], failure: str | None) -> dict[str, int]:
    """Return the bytes that the pending steps have left behind, or not tried, by reason."""
    if failure is None and pending[0].node_map.overlaps:
        return _left_in_place(part, pending[0].snapshot)
    nodes = NodeSet(node for step in pending for node in step.node_map.sources)
    found = sum(part.selection.on(nodes).values())
    return explain(found, part.left, Reason.APPEARED if failure is None else Reason.ABORTED)


def _left_by_plan(
    process: MovingProcess, plan: PagePlan, sources: NodeSet, failure: str | None
) -> dict[str, int]:
    """Return the bytes that are not where a strategy sent them page by page, by reason."""
    rest = Reason.ELSEWHERE if failure is None else Reason.ABORTED
    reasons = {why: size for why, size in process.left.items() if why != Reason.HIDDEN}
    left = explain(_astray(process, plan), reasons, rest)
    size = unreachable_bytes(process, sources) - plan.unreachable
    return sum_sizes((left, {Reason.HIDDEN.value: size} if size > 0 else {}))


def _left_in_place(part: MovingMemory, snapshot: Snapshot | None) -> dict[str, int]:
    """Return the bytes that are where they were before the first move, by reason.

    Count as moved what moved along with a folio of which another area or process has a part.
    """
    if snapshot is None:  # there was nothing to move
        return part.left
    try:
        found = snapshot.compare(part)
    except ProcessGoneError:
        part.gone = True
        return {}
    for pair, size in found.moved.items():
        part.moved[pair] = max(size, part.moved.get(pair, 0))
    return explain(found.stayed + snapshot.unseen(part), part.left, Reason.APPEARED)


def _astray(process: MovingProcess, plan: PagePlan) -> int:
    try:
        return plan.bytes_astray(process.target)
    except ProcessGoneError:
        process.gone = True
        return 0
