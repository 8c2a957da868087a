"""What `job-migrate --json` says of one host."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from schedhook.values.model import Outcome, Placement, Report
from schedhook.values.policy import PolicyCount
from schedhook.values.report_json import report_to_dict
from schedhook_plugins.schedulers.slurm.memory import left_by_reason
from schedhook_plugins.schedulers.slurm.migrate import JobMove
from schedhook_plugins.schedulers.slurm.remote import Result


def _outcome(move: JobMove, dry_run: bool) -> Outcome:
    if not move.done:
        return Outcome.FAILED if move.reports else Outcome.REFUSED
    if any(report.outcome is Outcome.PARTIAL for report in move.reports):
        return Outcome.PARTIAL
    return Outcome.PLANNED if dry_run else Outcome.COMPLETE


def build_result(host: str, move: JobMove, notes: Sequence[str], *, dry_run: bool) -> Result:
    """Return what was done on this host, or would be, as JSON has it."""
    outcome = _outcome(move, dry_run)
    return {
        "host": host,
        "status": outcome.exit_status,
        "outcome": outcome.value,
        "failure": move.failure,
        "not_restored": list(move.not_restored),
        "old": _placement(move.old),
        "new": _placement(move.new),
        "bytes_planned": sum(report.bytes_planned for report in move.reports),
        "bytes_moved": sum(report.bytes_moved for report in move.reports),
        "bytes_left": sum(report.bytes_left for report in move.reports),
        "left_by_reason": left_by_reason(move.reports),
        "policies_left": _policies_left(move.reports).to_dict(),
        "tasks": [
            {"task": task.name, "pids": list(task.pids), **_placement(task.placement)}
            for task in move.after
        ],
        "reports": [report_to_dict(report) for report in move.reports],
        "notes": list(notes),
    }


def _policies_left(reports: Iterable[Report]) -> PolicyCount:
    return sum((report.policies_left for report in reports), PolicyCount())


def _placement(placement: Placement) -> dict[str, str]:
    return {"cpus": str(placement.cpus), "nodes": str(placement.nodes)}
