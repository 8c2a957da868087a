"""What a report adds to the sums that the journal keeps: they outlive processes and old reports, so
that a counter made of them never goes back.
"""

from __future__ import annotations

from schedhook.values.model import Outcome, Report

Series = tuple[str, ...]
"""What is summed, and then its labels' values:

    relocations  outcome, strategy, scheduler      number
    moved_bytes  strategy, scheduler               bytes
    left_bytes   reason, scheduler                 bytes
    seconds      strategy, upper bound             number; only the bucket that it fell into
    seconds_sum  strategy                          seconds
"""

BOUNDS = ("0.01", "0.1", "0.5", "1", "5", "10", "30", "60", "300", "1800", "+Inf")
"""Upper bounds of the durations' buckets, in seconds."""
NO_SCHEDULER = "none"

_MOVED = frozenset({Outcome.COMPLETE, Outcome.PARTIAL, Outcome.FAILED})


def totals_of(report: Report, scheduler: str | None) -> dict[Series, float]:
    """What to add, by series. Nothing for a plan; of a refusal and of what had nothing to do only
    that it was."""
    if report.outcome is Outcome.PLANNED:
        return {}
    of = scheduler or NO_SCHEDULER
    result: dict[Series, float] = {("relocations", report.outcome.value, report.strategy, of): 1}
    if report.outcome not in _MOVED:
        return result
    result["moved_bytes", report.strategy, of] = report.bytes_moved
    for reason, size in report.left_by_reason.items():
        result["left_bytes", str(reason), of] = size
    bound = next(each for each in BOUNDS if report.seconds <= float(each))
    result["seconds", report.strategy, bound] = 1
    result["seconds_sum", report.strategy] = report.seconds
    return result
