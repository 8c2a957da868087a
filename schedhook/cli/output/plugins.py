"""`schedhook plugins` on a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table


def print_plugins(
    listed: Sequence[Mapping[str, str]], problems: Sequence[Mapping[str, str]]
) -> None:
    """Print the names by role, and then each plug-in that could not be loaded."""
    console = Console(highlight=False)
    table = Table("role", "name", "what it does", "package", box=box.SIMPLE)
    for each in listed:
        table.add_row(each["role"], each["name"], escape(each["summary"]), escape(each["package"]))
    console.print(table)
    for each in problems:
        console.print(
            f"[red]broken[/]: {escape(each['provider'])} ({escape(each['package'])}):"
            f" {escape(each['problem'])}"
        )
