"""Sizes, shares, counts and times in text for people."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

BAD_SHARE = 0.10
"""Jobs with this share of off-node memory or more are shown in red, from a tenth of it yellow."""


def size(number: int) -> str:
    """Return bytes in the largest binary unit that fits, such as `1.5 KiB`."""
    value = float(number)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def percent(part: int, whole: int) -> str:
    """Return whole percents; `0 %` and `100 %` only for nothing and all."""
    if not part:
        return "0 %"
    rounded = round(100 * part / whole)
    return "<1 %" if not rounded else f"{rounded if part == whole else min(rounded, 99)} %"


def off_node(part: int, whole: int) -> str:
    """Return `412.3 MiB off-node (78 %)`, or that nothing is."""
    return f"{size(part)} off-node ({percent(part, whole)})" if part else "nothing off-node"


def count(number: int, word: str) -> str:
    """Return number and noun, such as `1 process`, `2 processes`, `3 jobs`."""
    ending = "es" if word.endswith("s") else "s"
    return f"{number} {word}{'' if number == 1 else ending}"


def cut(text: str, length: int) -> str:
    """Return at most `length` characters of `text`; the last one is `…` if it was longer."""
    return text if len(text) <= length else text[: length - 1] + "…"


def when(seconds: float, form: str = "%Y-%m-%d %H:%M:%S") -> str:
    """Return a time, in seconds since the epoch, in local time; `form` as in strftime(3)."""
    return time.strftime(form, time.localtime(seconds))


def written(job: Mapping[str, Any]) -> str:
    """Return a job as people write it, and its id if that is another: `36_2 (38)`."""
    return f"{job['alias']} ({job['job']})" if job["alias"] else str(job["job"])


def by_number(residency: Mapping[str, int]) -> dict[int, int]:
    """Return residency from JSON with node numbers as numbers, in ascending order."""
    return dict(sorted((int(node), value) for node, value in residency.items()))
