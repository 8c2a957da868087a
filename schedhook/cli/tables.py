"""What people see: tables and the progress bar. The only module that imports rich."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table

from schedhook.findings import Finding, Level
from schedhook.model import Outcome, Report
from schedhook.relocation import Progress as ProgressFunction

_COLOURS = {
    Outcome.COMPLETE: "green",
    Outcome.NOTHING_TO_DO: "green",
    Outcome.PLANNED: "cyan",
    Outcome.PARTIAL: "yellow",
    Outcome.REFUSED: "red",
    Outcome.FAILED: "red",
}


def size(number: int) -> str:
    """Bytes for people, in powers of 1,024."""
    value = float(number)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


@contextmanager
def progress_bar() -> Iterator[ProgressFunction]:
    """A bar on standard error that the relocation drives."""
    with Progress(
        "moving",
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as bar:
        task = bar.add_task("moving", total=None)
        yield lambda moved, planned: bar.update(task, completed=moved, total=planned)


def print_report(report: Report) -> None:
    console = Console(highlight=False)
    colour = _COLOURS[report.outcome]
    console.print(
        f"[bold {colour}]{report.outcome.value}[/]  strategy {escape(report.strategy)},"
        f" nodes {str(report.node_map) or '-'} ({escape(report.node_map.mapper)})"
    )
    if report.plan is not None:
        _print_plan(console, report)
    elif report.bytes_planned:
        console.print(
            f"planned {size(report.bytes_planned)}, moved {size(report.bytes_moved)},"
            f" left {size(report.bytes_left)} in {report.seconds:.2f} s,"
            f" {report.attempts} attempt{'s' if report.attempts != 1 else ''}"
        )
        for reason, left in report.left_by_reason.items():
            console.print(f"  left: {size(left)} {escape(reason)}")
    for reason, kept in report.kept.items():
        console.print(f"  not asked for: {size(kept)} {escape(reason)}")
    if report.processes and report.plan is None:
        console.print(_before_and_after(report))
    for note in report.notes:
        console.print(f"note: {escape(note)}")


def _print_plan(console: Console, report: Report) -> None:
    plan = report.plan
    assert plan is not None
    olds = sorted({old for old, _ in plan.moves})
    news = sorted({new for _, new in plan.moves})
    table = Table("from \\ to", *(str(new) for new in news), box=box.SIMPLE)
    for old in olds:
        cells = [size(plan.moves[old, new]) if (old, new) in plan.moves else "" for new in news]
        table.add_row(str(old), *cells)
    table.add_section()
    table.add_row("free", *(size(plan.free.get(new, 0)) for new in news))
    if olds:
        console.print(table)
    processes = Table("pid", "command", "bytes to move", box=box.SIMPLE)
    for each in plan.processes:
        if each.bytes_planned:
            processes.add_row(str(each.pid), escape(each.command), size(each.bytes_planned))
    if olds:
        console.print(processes)


def _before_and_after(report: Report) -> Table:
    nodes = sorted(
        {
            node
            for each in report.processes
            for node in (*each.residency_before, *each.residency_after)
        }
    )
    table = Table("pid", "command", "", *(f"node {node}" for node in nodes), box=box.SIMPLE)
    for each in report.processes:
        before = [size(each.residency_before.get(node, 0)) for node in nodes]
        after = [size(each.residency_after.get(node, 0)) for node in nodes]
        table.add_row(str(each.pid), escape(each.command), "before", *before)
        if each.error:
            table.add_row("", "", "after", escape(each.error))
        else:
            table.add_row("", "", "after", *after)
    return table


def print_residency(shown: Mapping[str, Any]) -> None:
    """What `show --json` has, as a table."""
    console = Console(highlight=False)
    nodes = [
        node
        for node in shown["nodes"]
        if any(node in each["residency"] for each in shown["processes"])
    ] or list(shown["nodes"])
    table = Table("pid", "command", "cpus", "kind", box=box.SIMPLE)
    for node in nodes:
        table.add_column(f"node {node}", justify="right")
    for each in shown["processes"]:
        table.add_row(
            str(each["pid"]),
            escape(each["command"]),
            each["cpus"],
            "all",
            *(size(each["residency"].get(node, 0)) for node in nodes),
        )
        for kind, residency in each["kinds"].items():
            table.add_row("", "", "", kind, *(_or_dash(residency.get(node, 0)) for node in nodes))
    table.add_section()
    if len(shown["processes"]) > 1:
        total = [size(shown["residency"].get(node, 0)) for node in nodes]
        table.add_row("", "total, shared memory once", "", "", *total)
    free = [size(shown["nodes"].get(node, {}).get("free", 0)) for node in nodes]
    table.add_row("", "free on the host", "", "", *free)
    console.print(table)


def _or_dash(number: int) -> str:
    return size(number) if number else "-"


def print_plugins(
    listed: Sequence[Mapping[str, str]], problems: Sequence[Mapping[str, str]]
) -> None:
    console = Console(highlight=False)
    table = Table("role", "name", "what it does", "from", box=box.SIMPLE)
    for each in listed:
        table.add_row(each["role"], each["name"], escape(each["summary"]), escape(each["package"]))
    console.print(table)
    for each in problems:
        console.print(
            f"[red]broken[/]: {escape(each['provider'])} ({escape(each['package'])}):"
            f" {escape(each['problem'])}"
        )


_LEVELS = {Level.OK: "green", Level.NOTE: "yellow", Level.PROBLEM: "red"}


def print_findings(findings: Sequence[Finding]) -> None:
    """What `doctor` found, problems and their remedies in plain sight."""
    console = Console(highlight=False)
    table = Table(box=None, show_header=False, padding=(0, 1))
    for each in findings:
        level = f"[{_LEVELS[each.level]}]{each.level.value}[/]"
        what = escape(each.what) + (f"\n[dim]→ {escape(each.remedy)}[/]" if each.remedy else "")
        table.add_row(level, escape(each.subject), what)
    console.print(table)
