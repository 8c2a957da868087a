"""Bars on a page, with an axis below them and a legend; as wide as the page is."""

from __future__ import annotations

from collections.abc import Iterable
from xml.etree.ElementTree import Element

from schedhook.cli.output.charts import HOME_LEGEND, Bar, Group, Tone, marks_home, tones_of
from schedhook.cli.output.html.elements import make
from schedhook.cli.output.html.style import tone_class
from schedhook.cli.output.scale import tick_label, ticks
from schedhook.cli.output.text import size

_LEAST_SHARE = 0.25
"""Per cent of the scale, for a part that is not empty: a pixel or two."""


def draw_figure(group: Group) -> Element:
    """Return the group's bars on one scale."""
    caption = [make("figcaption", group.title)] if group.title else []
    note = [make("p", group.note, class_="note")] if group.note else []
    bars = [_draw_bar(bar, group.scale) for bar in group.bars]
    return make("figure", *caption, *bars, _draw_axis(group.scale), *note)


def draw_legend(groups: Iterable[Group]) -> Element:
    """Return what the colours of the groups' bars mean."""
    groups = tuple(groups)
    meanings = [make("span", _swatch(tone), tone.value) for tone in tones_of(groups)]
    if marks_home(groups):
        meanings.append(make("span", HOME_LEGEND))
    return make("div", *meanings, class_="legend")


def _swatch(tone: Tone) -> Element:
    box = make("rect", width="100%", height="100%")
    return make("svg", box, class_=f"swatch {tone_class(tone)}", aria_hidden="true")


def _draw_bar(bar: Bar, scale: int) -> Element:
    parts = [(tone, part) for tone, part in bar.parts if part]
    said = ", ".join(f"{tone.value} {size(part)}" for tone, part in parts) or "nothing"
    drawing = make("svg", role="img", aria_label=said)
    drawing.extend(_mark(number, scale) for number in ticks(scale))
    left = 0.0
    for tone, part in parts:
        width = max(_LEAST_SHARE, 100 * part / scale)
        box = make("rect", make("title", f"{bar.label}: {tone.value} {size(part)}"))
        box.attrib |= {"x": f"{left:.2f}%", "width": f"{width:.2f}%", "height": "100%"}
        box.set("class", tone_class(tone))
        drawing.append(box)
        left += width
    free = [f"{size(bar.free)} free"] if bar.free is not None else []
    return make(
        "div",
        make("span", bar.caption, class_="name"),
        drawing,
        make("span", size(bar.size), class_="size"),
        make("span", ", ".join(filter(None, [*free, bar.note])), class_="note"),
        class_="bar",
    )


def _mark(number: int, scale: int) -> Element:
    place = f"{100 * number / scale:.2f}%"
    return make("line", x1=place, x2=place, y1="0", y2="100%")


def _draw_axis(scale: int) -> Element:
    drawing = make("svg", role="img", aria_label="the scale of the bars")
    for number in ticks(scale):
        share = 100 * number / scale
        anchor = "start" if not number else "end" if share > 92 else "middle"
        text = make("text", tick_label(number), x=f"{share:.2f}%", y="1em", text_anchor=anchor)
        drawing.append(text)
    empty = (make("span", class_=name) for name in ("name", "size", "note"))
    name, total, note = empty
    return make("div", name, drawing, total, note, class_="bar axis")
