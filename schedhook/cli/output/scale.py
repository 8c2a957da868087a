"""The axis of bars: which sizes it marks."""

from __future__ import annotations

from schedhook.cli.output.text import size

_MOST_STEPS = 4


def ticks(scale: int) -> list[int]:
    """Return the sizes to mark from 0 to at most `scale` bytes: multiples of a power of two."""
    step = 1
    while scale // step > _MOST_STEPS:
        step *= 2
    return list(range(0, scale + 1, step))


def tick_label(number: int) -> str:
    """Return a size from `ticks`, such as `256 MiB`."""
    return size(number).replace(".0 ", " ") if number else "0"
