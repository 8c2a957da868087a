"""Charts as HTML: the picture, and the numbers in tables.

A page loads nothing from elsewhere, has no script in it, and forbids both by its policy.
"""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree.ElementTree import Element, SubElement, tostring

from schedhook.cli.output.charts import Chart, Group
from schedhook.cli.output.svg import INK, draw
from schedhook.cli.output.text import count, size

_STYLE = (
    f"body{{font:14px system-ui,sans-serif;color:{INK};margin:24px}}"
    "table{border-collapse:collapse;margin:8px 0 24px}caption{text-align:left;font-weight:bold}"
    "td,th{padding:2px 16px 2px 0;text-align:left}.n{text-align:right}"
)
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def to_html(chart: Chart, origin: str) -> str:
    """Return the chart as a page with a table for each of its groups; `origin` as in to_svg."""
    page = Element("html", lang="en")
    head = SubElement(page, "head")
    SubElement(head, "meta", charset="utf-8")
    SubElement(head, "meta", {"http-equiv": "Content-Security-Policy", "content": _POLICY})
    SubElement(head, "title").text = chart.title
    SubElement(head, "style").text = _STYLE
    body = SubElement(page, "body")
    body.append(draw(chart, origin))
    for group in chart.groups:
        _add_table(body, group)
    return "<!DOCTYPE html>\n" + tostring(page, "unicode", method="html") + "\n"


def _add_table(body: Element, group: Group) -> None:
    table = SubElement(body, "table")
    SubElement(table, "caption").text = group.title
    for row in _rows(group):
        line = SubElement(table, "tr")
        for index, cell in enumerate(row):
            SubElement(line, "td", {"class": "n"} if index > 1 else {}).text = cell


def _rows(group: Group) -> Iterator[tuple[str, str, str, str]]:
    """Yield (node, what, size, bytes) for each part that is not empty."""
    for bar in group.bars:
        for tone, part in bar.parts:
            if part:
                yield bar.label, tone.value, size(part), count(part, "byte")
