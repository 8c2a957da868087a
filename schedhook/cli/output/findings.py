"""`schedhook doctor` on a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from schedhook.plugins.findings import Finding, Severity
from schedhook.values.text import printable

_COLOURS = {Severity.OK: "green", Severity.NOTE: "yellow", Severity.PROBLEM: "red"}


def print_findings(findings: Sequence[Finding]) -> None:
    """Print each finding, and below it its remedy."""
    console = Console(highlight=False)
    table = Table(box=None, show_header=False, padding=(0, 1))
    for each in findings:
        level = f"[{_COLOURS[each.level]}]{each.level.value}[/]"
        what = _plain(each.what) + (f"\n[dim]→ {_plain(each.remedy)}[/]" if each.remedy else "")
        table.add_row(level, _plain(each.subject), what)
    console.print(table)


def _plain(text: str) -> str:
    """Return text that may have names from files as it shows in markup."""
    return escape(printable(text))
