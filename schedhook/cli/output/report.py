"""What a relocation did, or would do, on a terminal; and the bar while it does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table
from rich.text import Text

from schedhook.cli.output import charts
from schedhook.cli.output.bars import draw
from schedhook.cli.output.tables import cell, fitted_table
from schedhook.cli.output.text import count, percent, size
from schedhook.migration.profiling.summary import Summary
from schedhook.relocation.pipeline import Progress as ProgressFunction
from schedhook.values.model import Outcome, Plan, Report
from schedhook.values.text import printable

_COLOURS = {
    Outcome.COMPLETE: "green",
    Outcome.NOTHING_TO_DO: "green",
    Outcome.PLANNED: "cyan",
    Outcome.PARTIAL: "yellow",
    Outcome.REFUSED: "red",
    Outcome.FAILED: "red",
}
_MATRIX_COLUMN = 12
"""About the width of one destination in a plan's matrix."""


@contextmanager
def progress_bar() -> Iterator[ProgressFunction]:
    """A bar on standard error that the relocation drives: how much, how fast, how long yet."""
    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(compact=True),
        console=console,
        transient=True,
        disable=not console.is_interactive,
    ) as bar:
        task = bar.add_task("reading", total=None)
        yield lambda moved, planned: bar.update(
            task, description="moving", completed=min(moved, planned), total=planned
        )


def print_report(report: Report) -> None:
    """What `relocate --json` has."""
    console = Console(highlight=False)
    headline = (report.outcome.value, f"bold {_COLOURS[report.outcome]}")
    nodes = str(report.node_map).replace(",", ", ") or "-"
    how = f"  strategy {report.strategy}, nodes {nodes} ({report.node_map.mapper})"
    console.print(Text.assemble(headline, how))
    if report.plan is not None:
        _print_plan(console, report.plan)
    elif report.bytes_planned:
        console.print(
            f"planned {size(report.bytes_planned)}, moved {size(report.bytes_moved)},"
            f" left {size(report.bytes_left)} in {report.seconds:.2f} s,"
            f" {count(report.attempts, 'attempt')}"
        )
        for reason, left in report.left_by_reason.items():
            console.print(Text(f"  left: {size(left)} {printable(reason)}"))
    for reason, kept in report.kept.items():
        console.print(Text(f"  not asked for: {size(kept)} {printable(reason)}"))
    if report.processes and report.plan is None:
        _print_changes(console, report)
    for note in report.notes:
        console.print(Text(f"note: {printable(note)}"))


def _print_plan(console: Console, plan: Plan) -> None:
    if not plan.moves:
        return
    destinations = len({new for _, new in plan.moves})
    fits = _MATRIX_COLUMN * (destinations + 1) <= console.width
    console.print(_matrix(plan) if fits else _pairs(plan))
    table = fitted_table("pid", "command", "to move", "where")
    for each in plan.processes:
        if each.bytes_planned:
            where = ", ".join(f"{old} to {new}: {size(n)}" for (old, new), n in each.moves.items())
            texts = (str(each.pid), each.command, size(each.bytes_planned), where)
            table.add_row(*(cell(text) for text in texts))
    console.print(table)


def _matrix(plan: Plan) -> Table:
    """A row for each old node, a column for each new one."""
    moves = plan.moves
    olds, news = (sorted({pair[side] for pair in moves}) for side in (0, 1))
    table = fitted_table("from \\ to", *(str(new) for new in news))
    for old in olds:
        row = (size(moves[old, new]) if (old, new) in moves else "" for new in news)
        table.add_row(cell(str(old)), *(cell(text) for text in row))
    table.add_section()
    table.add_row("arriving", *(cell(size(_arriving(plan, new))) for new in news))
    table.add_row("free", *(_free(plan, new) for new in news))
    return table


def _pairs(plan: Plan) -> Table:
    """The same for more new nodes than the screen has columns for."""
    table = fitted_table("from", "to", "to move", "free")
    for (old, new), part in sorted(plan.moves.items()):
        table.add_row(cell(str(old)), cell(str(new)), cell(size(part)), _free(plan, new))
    return table


def _arriving(plan: Plan, node: int) -> int:
    return sum(part for (_, new), part in plan.moves.items() if new == node)


def _free(plan: Plan, node: int) -> Text:
    """What is free on a new node, in red where that and what leaves it are too little."""
    free = plan.free.get(node, 0)
    leaving = sum(part for (old, _), part in plan.moves.items() if old == node)
    is_short = free + leaving < _arriving(plan, node) + plan.reserve
    return cell(size(free), "bold red" if is_short else "")


def _print_changes(console: Console, report: Report) -> None:
    told = report.to_dict()
    chart = charts.of_report(told)
    if chart.groups:
        console.print()
        console.print(draw(chart.groups[0], console))
    if len(report.processes) == 1 and not report.processes[0].error:
        return
    table = fitted_table("pid", "command", "moved", "left", "change")
    for process, change in zip(report.processes, charts.changes(told), strict=True):
        texts = (
            str(process.pid),
            process.command,
            size(process.bytes_moved),
            size(process.bytes_left) if process.bytes_left else "-",
            process.error or _change(change),
        )
        table.add_row(*(cell(text) for text in texts))
    console.print(table)


def _change(change: charts.Change) -> str:
    """`0: 400.0 MiB → 0 B, 2: 0 B → 400.0 MiB`."""
    before, after = change.before, change.after
    return ", ".join(
        f"{node}: {size(before.get(node, 0))} → {size(after.get(node, 0))}"
        for node in sorted(before.keys() | after.keys())
        if before.get(node, 0) != after.get(node, 0)
    )


def print_profile(summary: Summary) -> None:
    """What a profile says, and how many accesses will be local."""
    console = Console(highlight=False)
    console.print(
        f"profile: {count(summary.samples, 'sample')} in {count(summary.lines, 'line')},"
        f" {summary.accesses} to pages in question"
    )
    if summary.bad_lines:
        console.print(f"  lines that are no samples: {summary.bad_lines}")
    for why, number in summary.unused.items():
        console.print(f"  not used: {number} {why}")
    console.print(
        f"local accesses: {percent(summary.local_before, summary.accesses)} before,"
        f" {percent(summary.local_after, summary.accesses)} after"
    )
    table = fitted_table("pid", "from node", "to memory on", "before", "after")
    for process in summary.processes:
        for index, pair in enumerate(process.pairs):
            numbers = (pair.accessing, pair.memory, pair.before, pair.after)
            table.add_row("" if index else str(process.pid), *map(str, numbers))
    if summary.processes:
        console.print(table)
