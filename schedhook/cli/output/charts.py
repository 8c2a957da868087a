"""Charts as values: bars that stand for bytes on nodes, in groups that have one scale.

footprint_chart.py and report_chart.py make them from what --json prints, which is also what the
journal keeps; bars.py draws them on terminals, svg.py and html.py in files. Text from processes and
schedulers is printable in them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from schedhook.values.text import printable

Json = Mapping[str, Any]

_HOME_MARK = "*"
HOME_LEGEND = f"{_HOME_MARK} node of its processors"


class Tone(Enum):
    """What a part of a bar stands for; the value is for the legend."""

    HOME = "on-node"
    OFF = "off-node"
    SHARED = "shared files"
    OTHER = "other memory"
    BEFORE = "before"
    AFTER = "after"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One node, one node at one time, or one job."""

    name: str
    parts: tuple[tuple[Tone, int], ...]
    """(what, bytes), side by side."""
    is_home: bool = False
    """Whether the processors are on this node."""
    is_continued: bool = False
    """Whether it shows the same as the bar above."""
    free: int | None = None
    """Bytes free on the node; None: not shown."""
    note: str = ""

    @property
    def label(self) -> str:
        """The name, with a mark if it is the processors' node."""
        return f"{self.name}{_HOME_MARK if self.is_home else ''}"

    @property
    def caption(self) -> str:
        """The label, empty if the bar above has it already."""
        return "" if self.is_continued else self.label

    @property
    def size(self) -> int:
        """Bytes of all parts."""
        return sum(part for _, part in self.parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Bars on one scale."""

    title: str
    bars: tuple[Bar, ...]
    scale: int
    """Bytes that the longest possible bar stands for."""
    note: str = ""
    """What the bars leave out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """The first group is the whole, those after it are its parts."""

    title: str
    facts: tuple[str, ...]
    groups: tuple[Group, ...]
    """All on one scale."""


def make_chart(title: str, facts: Iterable[str], groups: Iterable[Group]) -> Chart:
    """Return a chart of the groups on the scale of the largest of them."""
    groups = tuple(groups)
    scale = max((group.scale for group in groups), default=1)
    on_one = tuple(replace(group, scale=scale) for group in groups)
    return Chart(title=title, facts=tuple(facts), groups=on_one)


def make_group(title: str, bars: Sequence[Bar], scale: int = 0, note: str = "") -> Group:
    """Return a group on the scale of its longest bar, or `scale` bytes if that is more."""
    longest = max((bar.size for bar in bars), default=0)
    return Group(title=title, bars=tuple(bars), scale=max(scale, longest, 1), note=note)


def node_name(node: int, *, is_home: bool = False) -> str:
    """Return how bars and tables call a node, such as `node 3`, with a mark if it is home."""
    return f"node {node}{_HOME_MARK if is_home else ''}"


def tones_of(groups: Iterable[Group]) -> list[Tone]:
    """Return the tones that occur in the groups' bars, in the legend's order."""
    used = {tone for group in groups for bar in group.bars for tone, part in bar.parts if part}
    return [tone for tone in Tone if tone in used]


def marks_home(groups: Iterable[Group]) -> bool:
    """Return whether a bar of the groups is marked as the processors' node."""
    return any(bar.is_home for group in groups for bar in group.bars)


def title_of(process: Json) -> str:
    """Return a process's title, such as `process 100, ./app`."""
    return f"process {process['pid']}, {printable(process['command'])}"
