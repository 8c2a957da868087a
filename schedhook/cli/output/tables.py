"""Tables for people, none wider than the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from schedhook.values.text import printable

WIDE = 100
"""Terminals of so many columns have room for more than the essentials."""

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class Column(Generic[Row]):
    """A column of a table: its title, and what its cell shows of a row."""

    title: str
    show: Callable[[Row], str | Text]
    """Text that is not printable is escaped in a str, not in a Text."""
    is_number: bool = False
    """Aligned to the right."""
    shrinks: bool = False
    """Made narrower, its cells cut, if the table is too wide for the terminal."""
    only_wide: bool = False
    """Left out unless the terminal is WIDE."""


def make_table(columns: Sequence[Column[Row]], rows: Iterable[Row], console: Console) -> Table:
    """Return the table of `rows` with those `columns` that fit the console."""
    shown = [each for each in columns if console.width >= WIDE or not each.only_wide]
    table = empty_table()
    for column in shown:
        # rich narrows only columns that may wrap; their cells are cut instead.
        table.add_column(
            column.title,
            justify="right" if column.is_number else "left",
            no_wrap=not column.shrinks,
        )
    for row in rows:
        table.add_row(*(_as_cell(column.show(row)) for column in shown))
    return table


def empty_table() -> Table:
    """Return a table in the style of all, without columns."""
    return Table(box=box.SIMPLE, padding=(0, 1, 0, 0), pad_edge=False)


def cell(text: str, style: str = "") -> Text:
    """Return `text` as printable text on one line, which is cut if it does not fit."""
    return Text(printable(text), style=style, no_wrap=True, overflow="ellipsis")


def _as_cell(shown: str | Text) -> Text:
    return shown if isinstance(shown, Text) else cell(shown)
