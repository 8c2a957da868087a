"""Axes: few marks, with round sizes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from schedhook.cli.output.scale import tick_label, ticks


@given(st.integers(1, 1 << 50))
def test_an_axis_has_few_marks_that_reach_far(scale: int) -> None:
    marks = ticks(scale)
    step = marks[1]
    assert marks[0] == 0
    assert 2 <= len(marks) <= 5
    assert step & (step - 1) == 0
    assert marks[-1] <= scale < marks[-1] + step


def test_labels_are_round() -> None:
    assert [tick_label(each) for each in ticks(300 << 20)] == [
        "0",
        "64 MiB",
        "128 MiB",
        "192 MiB",
        "256 MiB",
    ]
