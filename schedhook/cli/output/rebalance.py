"""What a rebalance did, or would do, on a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.text import Text

from schedhook.cli.output.tables import Column, cell, make_table
from schedhook.cli.output.text import count, size
from schedhook.values.text import printable

_MOST_STEPS = 20
"""Lines of the order that are shown."""

_COLOURS = {"complete": "green", "partial": "yellow", "refused": "red", "failed": "red"}

_Row = Mapping[str, Any]


def _job(row: _Row) -> str:
    return f"{row['scheduler']} {row['job']}"


_MATRIX: tuple[Column[_Row], ...] = (
    Column("job", _job, shrinks=True),
    Column("from", lambda row: str(row["from"]), is_number=True),
    Column("to", lambda row: str(row["to"]), is_number=True),
    Column("off-node", lambda row: size(row["bytes"]), is_number=True),
)
_ORDER: tuple[Column[tuple[int, _Row]], ...] = (
    Column("step", lambda row: str(row[0]), is_number=True),
    Column("job", lambda row: _job(row[1]), shrinks=True),
    Column("from", lambda row: str(row[1]["from"]), is_number=True),
    Column("to", lambda row: _to(row[1]), is_number=True),
    Column("bytes", lambda row: size(row[1]["bytes"]), is_number=True),
)
_JOBS: tuple[Column[_Row], ...] = (
    Column("job", _job, shrinks=True),
    Column("outcome", lambda row: cell(row["outcome"], _COLOURS.get(row["outcome"], ""))),
    Column("moved", lambda row: size(row["bytes_moved"]), is_number=True),
    Column("left", lambda row: size(row["bytes_left"]), is_number=True),
    Column("why", lambda row: ", ".join(row["left_by_reason"]), shrinks=True),
)


def print_rebalance(shown: Mapping[str, Any]) -> None:
    """Print what `rebalance --json` has, for people."""
    console = Console(highlight=False)
    if not shown["jobs"] and not shown["left_alone"]:
        console.print("no job on this host")
        return
    if shown["matrix"]:
        console.print(make_table(_MATRIX, shown["matrix"], console))
    order = shown["order"]
    if order:
        steps = list(enumerate(order, 1))[:_MOST_STEPS]
        console.print(make_table(_ORDER, steps, console))
        if len(order) > len(steps):
            console.print(f"and {count(len(order) - len(steps), 'more step')}")
    console.print(make_table(_JOBS, shown["jobs"], console))
    for job in shown["jobs"]:
        for note in job["notes"]:
            console.print(Text(printable(f"{_job(job)}: {note}")))
    for job in shown["left_alone"]:
        console.print(Text(printable(f"{_job(job)}: left alone: {job['why']}")))


def _to(step: _Row) -> str:
    return (
        f"{step['to']} (on its way to {step['home']})"
        if step["to"] != step["home"]
        else str(step["to"])
    )
