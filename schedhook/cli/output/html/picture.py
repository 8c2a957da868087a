"""Charts as a page: the picture, and the numbers in tables."""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree.ElementTree import Element

from schedhook.cli.output.charts import Chart, Group
from schedhook.cli.output.html.elements import make
from schedhook.cli.output.html.figure import draw_figure, draw_legend
from schedhook.cli.output.html.page import write_page
from schedhook.cli.output.html.tables import Column, draw_table
from schedhook.cli.output.text import count, size

_Row = tuple[str, str, int]
"""(node, what, bytes)."""

_COLUMNS: tuple[Column[_Row], ...] = (
    Column("node", lambda row: row[0]),
    Column("memory", lambda row: row[1]),
    Column("size", lambda row: size(row[2]), is_number=True),
    Column("bytes", lambda row: count(row[2], "byte"), is_number=True),
)


def to_html(chart: Chart, origin: str) -> str:
    """Return the chart as a page with a table for each of its groups; `origin` as in to_svg."""
    content = [draw_legend(chart.groups)]
    content += [draw_figure(group) for group in chart.groups]
    content += [make("h2", "In numbers"), *map(_draw_table, chart.groups)]
    return write_page(chart.title, (*chart.facts, origin), content)


def _draw_table(group: Group) -> Element:
    return draw_table(_COLUMNS, _rows(group), group.title)


def _rows(group: Group) -> Iterator[_Row]:
    """Yield a row for each part that is not empty."""
    for bar in group.bars:
        for tone, part in bar.parts:
            if part:
                yield bar.label, tone.value, part
