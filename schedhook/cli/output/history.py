"""Runs of jobs, as the journal tells them, on a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from schedhook.cli.output.tables import cell, fitted_table
from schedhook.cli.output.text import size, when
from schedhook.values.text import printable

_WIDE = 100
"""Columns from which on there is room for whole dates."""
_COLOURS = {"complete": "green", "partial": "yellow", "refused": "red", "failed": "red"}

Run = Mapping[str, Any]


def print_runs(runs: Sequence[Run], *, in_full: bool) -> None:
    """A line for each run, or `in_full` a table for each."""
    console = Console(highlight=False)
    if not in_full:
        _print_all(console, runs)
        return
    for run in runs:
        _print_one(console, run)


def _print_all(console: Console, runs: Sequence[Run]) -> None:
    wide = console.width >= _WIDE
    form = "%Y-%m-%d %H:%M:%S" if wide else "%m-%d %H:%M"
    more = ("user",) if wide else ()
    table = fitted_table("job", *more, "started", "ended", "moves", "moved", "left", "outcome")
    for run in runs:
        reports = run["reports"]
        outcome = reports[-1]["outcome"] if reports else ""
        row = [f"{run['scheduler']} {run['job']}"]
        if wide:
            row.append("" if run["user"] is None else str(run["user"]))
        row += [when(run["started"], form), when(run["ended"], form) if run["ended"] else "open"]
        if reports:
            left = reports[-1]["bytes_left"]
            moved = sum(report["bytes_moved"] for report in reports)
            row += [str(len(reports)), size(moved), size(left) if left else "-"]
        else:
            row += ["-"] * 3
        table.add_row(*(cell(text) for text in row), cell(outcome, _COLOURS.get(outcome, "")))
    console.print(table)


def _print_one(console: Console, run: Run) -> None:
    rows = [(event["at"], "event", f"{event['point']}: {_done(event)}") for event in run["events"]]
    rows += [
        (
            seen["at"],
            "placement",
            f"{seen['task']}: processors {seen['cpus']}, nodes {seen['nodes']}"
            + ("" if seen["settled"] else " (memory not there)"),
        )
        for seen in run["placements"]
    ]
    rows += [(report["at"], "moved", _told(report)) for report in run["reports"]]
    if run["override"]:
        override = run["override"]
        text = f"processors {override['cpus']}, nodes {override['nodes']} until it ends"
        rows.append((override["at"], "override", text))
    ended = when(run["ended"]) if run["ended"] else "open"
    title = f"{run['scheduler']} job {run['job']}, {when(run['started'])} to {ended}"
    console.print(Text(printable(title), style="bold"))
    table = fitted_table("time", "kind", "detail")
    for at, kind, detail in sorted(rows, key=lambda row: float(row[0])):
        # Nothing of a job's story is cut: long lines are wrapped.
        table.add_row(cell(when(at)), cell(kind), Text(printable(detail), overflow="fold"))
    if rows:
        console.print(table)


def _told(report: Run) -> str:
    node_map = ", ".join(f"{old}:{new}" for old, new in report["node_map"].items())
    left = f", {size(report['bytes_left'])} left" if report["bytes_left"] else ""
    return f"{size(report['bytes_moved'])} {node_map}, {report['outcome']}{left}"


def _done(event: Run) -> str:
    return event["summary"] or ("done" if event["done"] else "not handled yet")
