"""Charts on a terminal: bars of characters that tell their parts apart without colour, too."""

from __future__ import annotations

from rich.console import Console, JustifyMethod, RenderableType
from rich.console import Group as Lines
from rich.table import Table
from rich.text import Text

from schedhook.cli.output.charts import HOME_MARK, HOME_MEANING, Bar, Group, Tone, legend
from schedhook.cli.output.text import size

_FILL = {
    Tone.HOME: ("█", "#", "green"),
    Tone.OFF: ("▒", "x", "red"),
    Tone.SHARED: ("▓", "=", "cyan"),
    Tone.OTHER: ("░", ".", "bright_black"),
    Tone.BEFORE: ("▒", "-", "yellow"),
    Tone.AFTER: ("█", "#", "green"),
}
"""Character, the same in ASCII, colour."""
_GAP = 2
"""Blanks between columns."""
_WIDEST_BAR = 48
_NARROWEST_BAR = 8
_NARROWEST_NOTE = 12


def draw(group: Group, console: Console) -> RenderableType:
    """The group's bars, one a line and no line wider than the console, with title and note."""
    label = _Column("left", [Text(bar.label) for bar in group.bars])
    when = _Column("left", [Text(_when(bar)) for bar in group.bars])
    total = _Column("right", [Text(size(bar.size)) for bar in group.bars])
    free = _Column("right", [Text(_free(bar)) for bar in group.bars])
    note = _Column("left", [Text(bar.note, style="bright_black") for bar in group.bars])
    left = console.width - sum(each.width + _GAP for each in (label, when, total, free))
    # Rather a note that is cut than a bar that shows nothing.
    width = left - note.width - _GAP if note.width else left
    width = max(_NARROWEST_BAR, min(_WIDEST_BAR, max(width, left // 2)))
    note.cut(left - width - _GAP)
    bars = _Column("left", [draw_bar(bar, group.scale, width, console) for bar in group.bars])
    columns = [each for each in (label, when, bars, total, free, note) if each.width]
    grid = Table.grid(padding=(0, _GAP, 0, 0))
    for column in columns:
        grid.add_column(justify=column.justify, no_wrap=True)
    for row in zip(*(column.cells for column in columns), strict=True):
        grid.add_row(*row)
    title = [Text(group.title, style="bold", no_wrap=True)] if group.title else []
    below = [Text(group.note, style="bright_black")] if group.note else []
    return Lines(*title, grid, *below)


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


def _when(bar: Bar) -> str:
    tone = bar.parts[0][0]
    return tone.value if tone in (Tone.BEFORE, Tone.AFTER) else ""


def _free(bar: Bar) -> str:
    return "" if bar.free is None else f"{size(bar.free)} free"


def draw_bar(bar: Bar, scale: int, width: int, console: Console) -> Text:
    """The bar's parts, `scale` bytes being `width` cells. However little there is of a part, it
    has a cell, unless it only sets off the others."""
    needed = [int(part > 0 and tone not in (Tone.SHARED, Tone.OTHER)) for tone, part in bar.parts]
    text = Text(no_wrap=True)
    seen, drawn = 0, 0
    for index, (tone, part) in enumerate(bar.parts):
        seen += part
        until = min(round(seen * width / scale), width - sum(needed[index + 1 :]))
        cells = max(until - drawn, needed[index])
        text.append(_character(tone, console) * cells, style=_FILL[tone][2])
        drawn += cells
    text.pad_right(width - drawn)
    return text


def draw_legend(group: Group, console: Console) -> Text:
    """What the bars' characters mean."""
    tones, marks_home = legend([group])
    parts = [
        Text.assemble((_character(tone, console) * 2, _FILL[tone][2]), " ", tone.value)
        for tone in tones
    ]
    if marks_home:
        parts.append(Text(f"{HOME_MARK} {HOME_MEANING}"))
    return Text("   ").join(parts)


def _character(tone: Tone, console: Console) -> str:
    return _FILL[tone][1 if console.options.ascii_only else 0]
