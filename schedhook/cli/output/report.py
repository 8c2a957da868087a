"""What a relocation did, or would do, on a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from schedhook.cli.output.bars import draw
from schedhook.cli.output.plan import print_plan
from schedhook.cli.output.report_chart import Change, chart_report, read_changes
from schedhook.cli.output.tables import Column, make_table
from schedhook.cli.output.text import count, size
from schedhook.values.model import Outcome, ProcessReport, Report
from schedhook.values.report_json import report_to_dict
from schedhook.values.text import printable

_COLOURS = {
    Outcome.COMPLETE: "green",
    Outcome.NOTHING_TO_DO: "green",
    Outcome.PLANNED: "cyan",
    Outcome.PARTIAL: "yellow",
    Outcome.REFUSED: "red",
    Outcome.FAILED: "red",
}

_Process = tuple[ProcessReport, Change]

_COLUMNS: tuple[Column[_Process], ...] = (
    Column("pid", lambda row: str(row[0].pid), is_number=True),
    Column("command", lambda row: row[0].command, shrinks=True),
    Column("moved", lambda row: size(row[0].bytes_moved), is_number=True),
    Column(
        "left", lambda row: size(row[0].bytes_left) if row[0].bytes_left else "-", is_number=True
    ),
    Column("change", lambda row: row[0].error or _changed(row[1]), shrinks=True),
)


def print_report(report: Report) -> None:
    """Print what `relocate --json` has, for people."""
    console = Console(highlight=False)
    _print_headline(report, console)
    if report.plan is not None:
        print_plan(report.plan, console)
    elif report.bytes_planned:
        _print_bytes(report, console)
    for reason, kept in report.kept.items():
        console.print(Text(f"  not asked for: {size(kept)} {printable(reason)}"))
    if report.processes and report.plan is None:
        _print_changes(report, console)
    for note in report.notes:
        console.print(Text(f"note: {printable(note)}"))


def _print_headline(report: Report, console: Console) -> None:
    outcome = (report.outcome.value, f"bold {_COLOURS[report.outcome]}")
    nodes = str(report.node_map).replace(",", ", ") or "-"
    how = f"  strategy {report.strategy}, nodes {nodes} ({report.node_map.mapper})"
    console.print(Text.assemble(outcome, how))


def _print_bytes(report: Report, console: Console) -> None:
    console.print(
        f"planned {size(report.bytes_planned)}, moved {size(report.bytes_moved)},"
        f" left {size(report.bytes_left)} in {report.seconds:.2f} s,"
        f" {count(report.attempts, 'attempt')}"
    )
    for reason, left in report.left_by_reason.items():
        console.print(Text(f"  left: {size(left)} {printable(reason)}"))
    if report.bytes_reclaimed:
        console.print(f"  the kernel dropped {size(report.bytes_reclaimed)} of clean cache for it")


def _print_changes(report: Report, console: Console) -> None:
    """Print residency before and after, and a table of processes if there are several."""
    shown = report_to_dict(report)
    chart = chart_report(shown)
    if chart.groups:
        console.print()
        console.print(draw(chart.groups[0], console))
    if len(report.processes) > 1 or report.processes[0].error:
        rows = zip(report.processes, read_changes(shown), strict=True)
        console.print(make_table(_COLUMNS, rows, console))


def _changed(change: Change) -> str:
    """Return what changed, such as `0: 400.0 MiB → 0 B, 2: 0 B → 400.0 MiB`."""
    before, after = change.before, change.after
    return ", ".join(
        f"{node}: {size(before.get(node, 0))} → {size(after.get(node, 0))}"
        for node in sorted(before.keys() | after.keys())
        if before.get(node, 0) != after.get(node, 0)
    )
