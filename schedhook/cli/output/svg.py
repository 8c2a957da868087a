"""Charts as SVG, or as HTML with the numbers in tables.

A document loads nothing from elsewhere and has no script in it. All text goes through the XML
writer, which escapes it.
"""

from __future__ import annotations

import socket
import textwrap
import time
from collections.abc import Iterator
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from schedhook.cli.output.charts import HOME_MARK, HOME_MEANING, Bar, Chart, Group, legend
from schedhook.cli.output.text import count, cut, size, when

_WIDTH = 960
_MARGIN = 24
_BAR_LEFT, _BAR_WIDTH = 112, 440
_SIZE_RIGHT = 650
_NOTE_LEFT, _NOTE_LENGTH = 662, 44
_LINE, _ROW = 20, 16
_LINE_LENGTH = 120
_MOST_GROUPS = 33
"""The whole and its 32 largest parts; with 64 nodes that is long enough."""
_INK, _FAINT = "#1f2933", "#616e7c"
_COLOURS = {
    "HOME": "#2b7bba",
    "OFF": "#e06c00",
    "SHARED": "#8fb8d6",
    "OTHER": "#d5dae0",
    "BEFORE": "#9aa5b1",
    "AFTER": "#2b7bba",
}
"""By tone; blue and orange, which the colour-blind tell apart."""
_STYLE = (
    f"body{{font:14px system-ui,sans-serif;color:{_INK};margin:24px}}"
    "table{border-collapse:collapse;margin:8px 0 24px}caption{text-align:left;font-weight:bold}"
    "td,th{padding:2px 16px 2px 0;text-align:left}.n{text-align:right}"
)
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def to_svg(chart: Chart) -> str:
    """The chart as an SVG document."""
    picture = _draw(chart)
    indent(picture)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + tostring(picture, "unicode") + "\n"


def to_html(chart: Chart) -> str:
    """The chart as a page: the picture, and a table for each of its groups."""
    page = Element("html", lang="en")
    head = SubElement(page, "head")
    SubElement(head, "meta", charset="utf-8")
    SubElement(head, "meta", {"http-equiv": "Content-Security-Policy", "content": _POLICY})
    SubElement(head, "title").text = chart.title
    SubElement(head, "style").text = _STYLE
    body = SubElement(page, "body")
    body.append(_draw(chart))
    for group in chart.groups:
        _add_table(body, group)
    return "<!DOCTYPE html>\n" + tostring(page, "unicode", method="html") + "\n"


def _draw(chart: Chart) -> Element:
    picture = Element("svg", xmlns="http://www.w3.org/2000/svg", role="img")
    SubElement(picture, "title").text = chart.title
    SubElement(picture, "rect", width="100%", height="100%", fill="white")
    drawing = SubElement(
        picture, "g", {"font-family": "system-ui, sans-serif", "font-size": "12", "fill": _INK}
    )
    y = _MARGIN + 16
    for line in textwrap.wrap(chart.title, _LINE_LENGTH * 2 // 3):
        _text(drawing, _MARGIN, y, line, {"font-size": "18", "font-weight": "bold"})
        y += _LINE + 4
    for fact in (*chart.facts, f"{socket.gethostname()}, {when(time.time())}"):
        for line in textwrap.wrap(fact, _LINE_LENGTH):
            _text(drawing, _MARGIN, y, line, {"fill": _FAINT})
            y += _LINE
    _draw_legend(drawing, y, chart)
    y += _LINE
    for group in chart.groups[:_MOST_GROUPS]:
        y = _draw_group(drawing, y + 12, group)
    more = len(chart.groups) - _MOST_GROUPS
    if more > 0:
        _text(drawing, _MARGIN, y + _LINE, f"and {more} more; --json has all", {"fill": _FAINT})
        y += _LINE
    height = y + _MARGIN
    picture.attrib |= {
        "width": str(_WIDTH),
        "height": str(height),
        "viewBox": f"0 0 {_WIDTH} {height}",
    }
    return picture


def _draw_legend(drawing: Element, y: int, chart: Chart) -> None:
    x = _MARGIN
    tones, marks_home = legend(chart.groups)
    for tone in tones:
        _box(drawing, x, y, 12, _COLOURS[tone.name])
        _text(drawing, x + 18, y, tone.value)
        x += 40 + 7 * len(tone.value)
    if marks_home:
        _text(drawing, x, y, f"{HOME_MARK} {HOME_MEANING}")


def _draw_group(drawing: Element, y: int, group: Group) -> int:
    """Where the next one may begin."""
    if group.title:
        title = cut(group.title, _LINE_LENGTH)
        _text(drawing, _MARGIN, y + 12, title, {"font-weight": "bold"})
        y += _LINE
    for bar in group.bars:
        if bar.label:
            y += 4
        _draw_bar(drawing, y + 12, bar, group.scale)
        y += _ROW
    if group.note:
        _text(drawing, _MARGIN, y + 16, group.note, {"fill": _FAINT})
        y += _LINE
    return y


def _draw_bar(drawing: Element, y: int, bar: Bar, scale: int) -> None:
    _text(drawing, _MARGIN, y, bar.label)
    x = float(_BAR_LEFT)
    for tone, part in bar.parts:
        if part:
            width = max(1.0, part / scale * _BAR_WIDTH)
            box = _box(drawing, x, y, width, _COLOURS[tone.name])
            SubElement(box, "title").text = f"{bar.label} {tone.value}: {size(part)}".strip()
            x += width
    _text(drawing, _SIZE_RIGHT, y, size(bar.size), {"text-anchor": "end"})
    _text(drawing, _NOTE_LEFT, y, cut(bar.note, _NOTE_LENGTH), {"fill": _FAINT})


def _text(drawing: Element, x: int, y: int, text: str, more: dict[str, str] | None = None) -> None:
    if text:
        SubElement(drawing, "text", {"x": str(x), "y": str(y), **(more or {})}).text = text


def _box(drawing: Element, x: float, y: int, width: float, colour: str) -> Element:
    """A filled box on the text line at `y`."""
    place = {"x": f"{x:g}", "y": str(y - 11), "width": f"{width:.1f}", "height": "13"}
    return SubElement(drawing, "rect", {**place, "fill": colour})


def _add_table(body: Element, group: Group) -> None:
    table = SubElement(body, "table")
    SubElement(table, "caption").text = group.title
    for row in _rows(group):
        line = SubElement(table, "tr")
        for index, cell in enumerate(row):
            SubElement(line, "td", {"class": "n"} if index > 1 else {}).text = cell


def _rows(group: Group) -> Iterator[tuple[str, str, str, str]]:
    label = ""
    for bar in group.bars:
        label = bar.label or label
        for tone, part in bar.parts:
            if part:
                yield label, tone.value, size(part), count(part, "byte")
