"""Tables for people, none wider than the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from schedhook.plugins.findings import Finding, Level
from schedhook.values.text import printable

_NARROWED = frozenset(("job", "nodes", "processors", "command", "where", "change", "detail"))
"""Columns that give way where the screen is too narrow for all."""
_NUMERIC = frozenset(
    ("pid", "processes", "memory", "off-node", "to move", "moves", "moved", "left", "free", "")
)
_LEVELS = {Level.OK: "green", Level.NOTE: "yellow", Level.PROBLEM: "red"}


def fitted_table(*columns: str) -> Table:
    """A table with these columns, to be filled with `cell`s."""
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0), pad_edge=False)
    for name in columns:
        # rich narrows only columns that may wrap; their cells are cut instead.
        is_number = name in _NUMERIC or name.isdigit()
        table.add_column(
            name, justify="right" if is_number else "left", no_wrap=name not in _NARROWED
        )
    return table


def cell(text: str, style: str = "") -> Text:
    """Text on one line, whoever wrote it."""
    return Text(printable(text), style=style, no_wrap=True, overflow="ellipsis")


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


def print_findings(findings: Sequence[Finding]) -> None:
    """What `doctor` found, problems and their remedies in plain sight."""
    console = Console(highlight=False)
    table = Table(box=None, show_header=False, padding=(0, 1))
    for each in findings:
        level = f"[{_LEVELS[each.level]}]{each.level.value}[/]"
        what = escape(each.what) + (f"\n[dim]→ {escape(each.remedy)}[/]" if each.remedy else "")
        table.add_row(level, escape(each.subject), what)
    console.print(table)
