"""What became of the memory: residency is read again, and all that stayed has a reason."""

from __future__ import annotations

from collections.abc import Mapping

from schedhook.model import Outcome, ProcessReport, Reason, Residency
from schedhook.moving import Move, MovingProcess

_STRAY_SHARE = 0.001
_STRAY_BYTES = 64 << 10
"""What a busy job may have put on a source node behind our back, as a share of what moved and at
least in bytes, for a relocation still to count as complete."""
_GONE = "exited, left its cgroup or became another program during the relocation"


def verify(
    move: Move, before: Mapping[int, Residency], failure: str | None
) -> tuple[list[ProcessReport], dict[str, int]]:
    """Read residency again: each process's report, and the bytes that stayed by reason.

    `before` is the residency of each process before the move, `failure` what ended it early.
    """
    move.look()
    reports = []
    by_reason: dict[str, int] = {}
    for process in move.processes:
        alive = not process.gone and process.target.alive()
        left = _left(process, move, failure) if alive else {}
        for reason, size in left.items():
            by_reason[reason] = by_reason.get(reason, 0) + size
        reports.append(
            ProcessReport(
                pid=process.pid,
                command=process.target.command,
                residency_before=before.get(process.pid, {}),
                residency_after=process.selection.residency if alive else {},
                bytes_moved=sum(process.moved.values()),
                bytes_left=sum(left.values()),
                error=None if alive else _GONE,
            )
        )
    return reports, dict(sorted(by_reason.items(), key=lambda item: -item[1]))


def judge(moved: int, by_reason: Mapping[str, int], failure: str | None) -> Outcome:
    """The outcome of a move of `moved` bytes that left what `by_reason` tells."""
    if failure is not None:
        return Outcome.FAILED
    strays = by_reason.get(Reason.APPEARED, 0)
    stayed = sum(by_reason.values()) - strays
    if stayed or strays > min(moved, max(_STRAY_BYTES, _STRAY_SHARE * moved)):
        return Outcome.PARTIAL
    return Outcome.COMPLETE if moved else Outcome.NOTHING_TO_DO


def explain(left: int, reasons: Mapping[str, int], rest: str) -> dict[str, int]:
    """Make the reasons add up to what residency shows: `left` bytes.

    Bytes that no failure accounts for get the reason `rest`. Where fewer stayed than had failed
    (the job freed them, or they moved by other hands), the largest reasons shrink.
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


def _left(process: MovingProcess, move: Move, failure: str | None) -> dict[str, int]:
    if process.placed is not None:
        rest = Reason.ELSEWHERE if failure is None else Reason.ABORTED
        return explain(move.astray(process), process.left, rest)
    if move.node_map.overlaps and failure is None:
        return dict(process.left)
    found = sum(process.selection.on(move.node_map.sources).values())
    return explain(found, process.left, Reason.APPEARED if failure is None else Reason.ABORTED)
