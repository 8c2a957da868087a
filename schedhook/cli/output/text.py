"""Sizes, shares and node maps as people read them."""

from __future__ import annotations

import time
from collections.abc import Mapping

BAD_SHARE = 0.10
"""From this share of off-node memory on a job is shown as bad, from a tenth of it as doubtful."""


def size(number: int) -> str:
    """Bytes, in powers of 1,024."""
    value = float(number)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def percent(part: int, whole: int) -> str:
    """Whole percents; 0 % and 100 % only for nothing and all."""
    if not part:
        return "0 %"
    rounded = round(100 * part / whole)
    return "<1 %" if not rounded else f"{rounded if part == whole else min(rounded, 99)} %"


def off_node(part: int, whole: int) -> str:
    """`412.3 MiB off-node (78 %)`, or that there is none."""
    return f"{size(part)} off-node ({percent(part, whole)})" if part else "nothing off-node"


def count(number: int, word: str) -> str:
    """`1 process`, `2 processes`, `3 jobs`."""
    ending = "es" if word.endswith("s") else "s"
    return f"{number} {word}{'' if number == 1 else ending}"


def cut(text: str, length: int) -> str:
    """At most `length` characters of it."""
    return text if len(text) <= length else text[: length - 1] + "…"


def when(seconds: float, form: str = "%Y-%m-%d %H:%M:%S") -> str:
    """Seconds after the epoch, in local time."""
    return time.strftime(form, time.localtime(seconds))


def by_number(residency: Mapping[str, int]) -> dict[int, int]:
    """JSON's residency with node numbers as numbers, in ascending order."""
    return dict(sorted((int(node), value) for node, value in residency.items()))
