"""Counters: sums over all reports.

They outlive processes and pruned reports, so a Prometheus counter made of them never goes back.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping

from schedhook.journal import columns
from schedhook.journal.database import Database
from schedhook.values.model import Outcome, Report

Series = tuple[str, ...]
"""The counter's name, then the values of its labels:

    relocations  outcome, strategy, scheduler      number
    moved_bytes  strategy, scheduler               bytes
    left_bytes   reason, scheduler                 bytes
    seconds      strategy, upper bound             number, only of the bucket that the time is in
    seconds_sum  strategy                          seconds
    avoided      scheduler                         byte-seconds that keep_local has avoided off-node
"""

BOUNDS = ("0.01", "0.1", "0.5", "1", "5", "10", "30", "60", "300", "1800", "+Inf")
"""Upper bounds of the buckets of durations, in seconds."""
_NO_SCHEDULER = "none"

_MOVED = frozenset({Outcome.COMPLETE, Outcome.PARTIAL, Outcome.FAILED})


class Counters:
    """The table `counters`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, report: Report, scheduler: str | None) -> None:
        """Add a report's numbers to the counters."""
        self._add(increments(report, scheduler))

    def add_avoided(self, byte_seconds: Mapping[str, float]) -> None:
        """Add byte-seconds by scheduler that memory was at home instead of off-node."""
        self._add({("avoided", scheduler): value for scheduler, value in byte_seconds.items()})

    def _add(self, increase: Mapping[Series, float]) -> None:
        with self._database.write() as db:
            db.executemany(
                "INSERT INTO counters VALUES (?, ?) ON CONFLICT (series) DO UPDATE SET"
                " value = value + excluded.value",
                [(json.dumps(series), value) for series, value in increase.items()],
            )

    def read(self) -> dict[Series, float]:
        """Return the sums over every report ever added, those of pruned reports included."""
        with self._database.read():
            return dict(self._database.rows.read("counters", _parse_counter))


def increments(report: Report, scheduler: str | None) -> dict[Series, float]:
    """Return what a report adds to each counter.

    A plan adds nothing. A refusal, and a relocation that had nothing to do, only count as such.
    """
    if report.outcome is Outcome.PLANNED:
        return {}
    of = scheduler or _NO_SCHEDULER
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


def _parse_counter(row: sqlite3.Row) -> tuple[Series, float]:
    series = columns.json_value(columns.text(row, "series"))
    if not (isinstance(series, list) and series and all(isinstance(each, str) for each in series)):
        raise ValueError(f"series is {series!r:.60}")
    return tuple(series), columns.number(row, "value")
