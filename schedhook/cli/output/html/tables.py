"""Tables on a page; on narrow screens each row becomes a block of lines with their titles."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar
from xml.etree.ElementTree import Element

from schedhook.cli.output.html.elements import make
from schedhook.values.text import printable

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class Column(Generic[Row]):
    """A column: its title, and the text that its cell has of a row."""

    title: str
    show: Callable[[Row], str]
    is_number: bool = False
    """Aligned to the right."""
    is_long: bool = False
    """Wrapped where it has to be, so that the others need not be."""


def draw_table(columns: Sequence[Column[Row]], rows: Iterable[Row], caption: str = "") -> Element:
    """Return the table; columns in which every cell is empty are left out."""
    cells = [[printable(column.show(row)) for column in columns] for row in rows]
    used = [index for index in range(len(columns)) if any(row[index] for row in cells)]
    titles = [make("th", columns[index].title, **_kind(columns[index])) for index in used]
    lines = [make("tr", *(_cell(columns[index], row[index]) for index in used)) for row in cells]
    head = make("thead", make("tr", *titles))
    above = [make("caption", caption)] if caption else []
    return make("table", *above, head, make("tbody", *lines))


def _cell(column: Column[Row], text: str) -> Element:
    return make("td", text, data_title=column.title, **_kind(column))


def _kind(column: Column[Row]) -> dict[str, str]:
    if column.is_number:
        return {"class_": "n"}
    return {"class_": "long"} if column.is_long else {}
