"""The frames of physical memory that belong to each node, from /proc/zoneinfo."""

from __future__ import annotations

import re
from pathlib import Path

_FIELD = re.compile(
    r"^Node (\d{1,9}), zone|^ +spanned +(\d{1,18})|^ +start_pfn: +(\d{1,18})",
    re.MULTILINE | re.ASCII,
)


def node_spans(root: Path = Path("/")) -> list[tuple[int, int, int]]:
    """Return ascending rows (first frame, one past the last, node).

    Return none if the file is missing or the spans of two nodes overlap, so that a frame's number
    does not determine its node.
    """
    try:
        text = (root / "proc/zoneinfo").read_text("ascii", "replace")
    except OSError:
        return []
    rows: list[tuple[int, int, int]] = []
    node = spanned = 0
    for number, size, start in _FIELD.findall(text):
        if number:
            node, spanned = int(number), 0
        elif size:
            spanned = int(size)
        elif spanned:
            rows.append((int(start), int(start) + spanned, node))
    spans: list[tuple[int, int, int]] = []
    for start, end, node in sorted(rows):
        if not spans or start >= spans[-1][1]:
            spans.append((start, end, node))
        elif node == spans[-1][2]:  # a movable zone within another one
            spans[-1] = (spans[-1][0], max(end, spans[-1][1]), node)
        else:
            return []
    return spans
