"""Reports as JSON, as `relocate --json` prints them. Sizes are bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from schedhook.values.fit import claimed_by_node, would_reclaim
from schedhook.values.model import Plan, ProcessPlan, ProcessReport, Report


def report_to_dict(report: Report) -> dict[str, Any]:
    """Return the object that `relocate --json` prints."""
    result: dict[str, Any] = {
        "outcome": report.outcome.value,
        "job": report.job,
        "strategy": report.strategy,
        "backend": report.backend,
        "mapper": report.node_map.mapper,
        "node_map": by_name(report.node_map.pairs),
        "bytes_planned": report.bytes_planned,
        "bytes_moved": report.bytes_moved,
        "bytes_left": report.bytes_left,
        "left_by_reason": dict(report.left_by_reason),
        "bytes_reclaimed": report.bytes_reclaimed,
        "policies_left": report.policies_left.to_dict(),
        "bytes_kept": dict(report.kept),
        "attempts": report.attempts,
        "seconds": round(report.seconds, 6),
        "processes": [_process_report(process) for process in report.processes],
        "not_answering": list(report.not_answering),
        "notes": list(report.notes),
    }
    if report.plan is not None:
        result["plan"] = _plan(report.plan)
    return result


def by_name(residency: Mapping[int, int]) -> dict[str, int]:
    """Return the mapping with node numbers as text, in ascending order of the numbers."""
    return {str(node): value for node, value in sorted(residency.items())}


def _process_report(process: ProcessReport) -> dict[str, Any]:
    return {
        "pid": process.pid,
        "command": process.command,
        "residency_before": by_name(process.residency_before),
        "residency_after": by_name(process.residency_after),
        "bytes_moved": process.bytes_moved,
        "bytes_left": process.bytes_left,
        "error": process.error,
    }


def _plan(plan: Plan) -> dict[str, Any]:
    return {
        "moves": _moves(plan.moves),
        "free": by_name(plan.free),
        "reclaimable": by_name(plan.reclaimable),
        "dirty": by_name(plan.dirty),
        "would_reclaim": by_name(would_reclaim(plan)),
        "claimed": by_name(claimed_by_node(plan)),
        "reserve": max((room.reserve for room in plan.rooms), default=0),
        "refusal": plan.refusal,
        "processes": [_process_plan(process) for process in plan.processes],
    }


def _process_plan(process: ProcessPlan) -> dict[str, Any]:
    return {
        "pid": process.pid,
        "command": process.command,
        "bytes_planned": process.bytes_planned,
        "moves": _moves(process.moves),
        "error": process.error,
    }


def _moves(moves: Mapping[tuple[int, int], int]) -> list[dict[str, int]]:
    return [{"from": old, "to": new, "bytes": size} for (old, new), size in sorted(moves.items())]
