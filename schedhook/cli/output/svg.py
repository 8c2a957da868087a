"""Charts as SVG.

A document loads nothing from elsewhere and has no script in it. All text goes through the XML
writer, which escapes it.
"""

from __future__ import annotations

import textwrap
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from schedhook.cli.output.charts import (
    HOME_LEGEND,
    Bar,
    Chart,
    Group,
    marks_home,
    tones_of,
)
from schedhook.cli.output.palette import FAINT, INK, LIGHT, LINE
from schedhook.cli.output.scale import tick_label, ticks
from schedhook.cli.output.text import cut, size

_WIDTH = 960
_MARGIN = 24
_BAR_LEFT, _BAR_WIDTH = 112, 440
_SIZE_RIGHT = 650
_NOTE_LEFT, _NOTE_LENGTH = 662, 44
_LINE, _ROW = 20, 16
_LINE_LENGTH = 120
_MOST_GROUPS = 33
"""The whole and its 32 largest parts; with 64 nodes that is long enough."""


def to_svg(chart: Chart, origin: str) -> str:
    """Return the chart as an SVG document; `origin` says of which host and when."""
    picture = draw(chart, origin)
    indent(picture)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + tostring(picture, "unicode") + "\n"


def draw(chart: Chart, origin: str) -> Element:
    """Return the chart as an `svg` element."""
    picture = Element("svg", xmlns="http://www.w3.org/2000/svg", role="img")
    SubElement(picture, "title").text = chart.title
    SubElement(picture, "rect", width="100%", height="100%", fill="white")
    drawing = SubElement(
        picture, "g", {"font-family": "system-ui, sans-serif", "font-size": "12", "fill": INK}
    )
    y = _draw_head(drawing, chart, origin)
    _draw_legend(drawing, y, chart)
    y += _LINE
    if chart.groups:
        _draw_axis(drawing, y + 12, chart.groups[0].scale)
        y += _LINE
    for group in chart.groups[:_MOST_GROUPS]:
        y = _draw_group(drawing, y + 12, group)
    more = len(chart.groups) - _MOST_GROUPS
    if more > 0:
        _text(drawing, _MARGIN, y + _LINE, f"and {more} more; --json has all", {"fill": FAINT})
        y += _LINE
    height = y + _MARGIN
    picture.attrib |= {
        "width": str(_WIDTH),
        "height": str(height),
        "viewBox": f"0 0 {_WIDTH} {height}",
    }
    return picture


def _draw_head(drawing: Element, chart: Chart, origin: str) -> int:
    """Draw title and facts, and return where the next line begins."""
    y = _MARGIN + 16
    for line in textwrap.wrap(chart.title, _LINE_LENGTH * 2 // 3):
        _text(drawing, _MARGIN, y, line, {"font-size": "18", "font-weight": "bold"})
        y += _LINE + 4
    for fact in (*chart.facts, origin):
        for line in textwrap.wrap(fact, _LINE_LENGTH):
            _text(drawing, _MARGIN, y, line, {"fill": FAINT})
            y += _LINE
    return y


def _draw_legend(drawing: Element, y: int, chart: Chart) -> None:
    x = _MARGIN
    for tone in tones_of(chart.groups):
        _box(drawing, x, y, 12, LIGHT[tone])
        _text(drawing, x + 18, y, tone.value)
        x += 40 + 7 * len(tone.value)
    if marks_home(chart.groups):
        _text(drawing, x, y, HOME_LEGEND)


def _draw_group(drawing: Element, y: int, group: Group) -> int:
    """Draw the group at `y`, and return where the next one may begin."""
    if group.title:
        title = cut(group.title, _LINE_LENGTH)
        _text(drawing, _MARGIN, y + 12, title, {"font-weight": "bold"})
        y += _LINE
    for bar in group.bars:
        if not bar.is_continued:
            y += 4
        _draw_bar(drawing, y + 12, bar, group.scale)
        y += _ROW
    if group.note:
        _text(drawing, _MARGIN, y + 16, group.note, {"fill": FAINT})
        y += _LINE
    return y


def _draw_axis(drawing: Element, y: int, scale: int) -> None:
    """Draw the sizes that the lines across the bars stand for."""
    for number in ticks(scale):
        place = {"text-anchor": "middle", "fill": FAINT}
        _text(drawing, round(_place(number, scale)), y, tick_label(number), place)


def _place(number: int, scale: int) -> float:
    return _BAR_LEFT + number / scale * _BAR_WIDTH


def _draw_bar(drawing: Element, y: int, bar: Bar, scale: int) -> None:
    _text(drawing, _MARGIN, y, bar.caption)
    for number in ticks(scale):
        x = f"{_place(number, scale):.1f}"
        ends = {"x1": x, "x2": x, "y1": str(y - 12), "y2": str(y + _ROW - 12)}
        SubElement(drawing, "line", {**ends, "stroke": LINE})
    left = float(_BAR_LEFT)
    for tone, part in bar.parts:
        if part:
            width = max(1.0, part / scale * _BAR_WIDTH)
            box = _box(drawing, left, y, width, LIGHT[tone])
            SubElement(box, "title").text = f"{bar.label} {tone.value}: {size(part)}"
            left += width
    _text(drawing, _SIZE_RIGHT, y, size(bar.size), {"text-anchor": "end"})
    _text(drawing, _NOTE_LEFT, y, cut(bar.note, _NOTE_LENGTH), {"fill": FAINT})


def _text(drawing: Element, x: int, y: int, text: str, more: dict[str, str] | None = None) -> None:
    if text:
        SubElement(drawing, "text", {"x": str(x), "y": str(y), **(more or {})}).text = text


def _box(drawing: Element, x: float, y: int, width: float, colour: str) -> Element:
    """Draw a filled box on the text line at `y`, and return it."""
    place = {"x": f"{x:g}", "y": str(y - 11), "width": f"{width:.1f}", "height": "13"}
    return SubElement(drawing, "rect", {**place, "fill": colour})
