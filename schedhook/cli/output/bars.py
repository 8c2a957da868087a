"""Bars on a terminal, of characters that differ even without colour."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console, JustifyMethod, RenderableType
from rich.console import Group as Lines
from rich.table import Table
from rich.text import Text

from schedhook.cli.output.charts import HOME_LEGEND, Bar, Group, Tone, marks_home, tones_of
from schedhook.cli.output.text import size

_FILL = {
    Tone.HOME: ("█", "#", "green"),
    Tone.OFF: ("▒", "x", "red"),
    Tone.SHARED: ("▓", "=", "cyan"),
    Tone.OTHER: ("░", ".", "bright_black"),
    Tone.BEFORE: ("▂", "-", "yellow"),
    Tone.AFTER: ("▆", "+", "magenta"),
}
"""Character, the same in ASCII, colour; each means the same in every screen."""
_GAP = 2
"""Blanks between columns."""
_WIDEST_BAR = 48
_NARROWEST_BAR = 8
_NARROWEST_NOTE = 12
_MAY_VANISH = (Tone.SHARED, Tone.OTHER)
"""Parts that need no cell if there is little of them: they only set off the others."""


def draw(group: Group, console: Console) -> RenderableType:
    """Return the group's title, its bars, one per line, and its note, as wide as the console."""
    label = _Column("left", [Text(bar.caption) for bar in group.bars])
    when = _Column("left", [Text(_when(bar)) for bar in group.bars])
    total = _Column("right", [Text(size(bar.size)) for bar in group.bars])
    free = _Column("right", [Text(_free(bar)) for bar in group.bars])
    note = _Column("left", [Text(bar.note, style="bright_black") for bar in group.bars])
    left = console.width - sum(each.width + _GAP for each in (label, when, total, free))
    width = _bar_width(left, note.width)
    note.cut(left - width - _GAP)
    bars = _Column("left", [draw_bar(bar.parts, group.scale, width, console) for bar in group.bars])
    title = [Text(group.title, style="bold", no_wrap=True)] if group.title else []
    below = [Text(group.note, style="bright_black")] if group.note else []
    return Lines(*title, _grid(label, when, bars, total, free, note), *below)


def _bar_width(left: int, note: int) -> int:
    """Return the width of bars if bars and notes share `left` cells and the widest note is `note`.

    A note is cut rather than a bar made too short to show anything.
    """
    wanted = left - note - _GAP if note else left
    return max(_NARROWEST_BAR, min(_WIDEST_BAR, max(wanted, left // 2)))


class _Column:
    def __init__(self, justify: JustifyMethod, cells: list[Text]) -> None:
        self.justify = justify
        self.cells = cells

    @property
    def width(self) -> int:
        return max((cell.cell_len for cell in self.cells), default=0)

    def cut(self, width: int) -> None:
        for cell in self.cells:
            cell.truncate(width if width >= _NARROWEST_NOTE else 0, overflow="ellipsis")


def _grid(*columns: _Column) -> Table:
    """Return the columns that are not empty, side by side."""
    shown = [each for each in columns if each.width]
    grid = Table.grid(padding=(0, _GAP, 0, 0))
    for column in shown:
        grid.add_column(justify=column.justify, no_wrap=True)
    for row in zip(*(column.cells for column in shown), strict=True):
        grid.add_row(*row)
    return grid


def _when(bar: Bar) -> str:
    tone = bar.parts[0][0]
    return tone.value if tone in (Tone.BEFORE, Tone.AFTER) else ""


def _free(bar: Bar) -> str:
    return "" if bar.free is None else f"{size(bar.free)} free"


def draw_bar(parts: Sequence[tuple[Tone, int]], scale: int, width: int, console: Console) -> Text:
    """Return a bar of the parts (what, bytes), `width` cells standing for `scale` bytes.

    A part that is not empty has at least one cell, unless it may vanish.
    """
    needed = [int(part > 0 and tone not in _MAY_VANISH) for tone, part in parts]
    text = Text(no_wrap=True)
    seen, drawn = 0, 0
    for index, (tone, part) in enumerate(parts):
        seen += part
        until = min(round(seen * width / scale), width - sum(needed[index + 1 :]))
        cells = max(until - drawn, needed[index])
        text.append(_character(tone, console) * cells, style=_FILL[tone][2])
        drawn += cells
    text.pad_right(width - drawn)
    return text


def draw_legend(group: Group, console: Console) -> Text:
    """Return what the characters of the group's bars mean."""
    parts = [
        Text.assemble((_character(tone, console) * 2, _FILL[tone][2]), " ", tone.value)
        for tone in tones_of([group])
    ]
    if marks_home([group]):
        parts.append(Text(HOME_LEGEND))
    return Text("   ").join(parts)


def _character(tone: Tone, console: Console) -> str:
    return _FILL[tone][1 if console.options.ascii_only else 0]
