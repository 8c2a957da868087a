"""Sizes, shares and counts in text."""

from __future__ import annotations

import pytest

from schedhook.cli.output.text import count, cut, percent, size


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [
        (0, 0, "0 %"),
        (0, 9, "0 %"),
        (1, 9999, "<1 %"),
        (1, 100, "1 %"),
        (9998, 9999, "99 %"),
        (9, 9, "100 %"),
    ],
)
def test_only_nothing_is_0_percent_and_only_all_is_100(part: int, whole: int, text: str) -> None:
    assert percent(part, whole) == text


def test_sizes() -> None:
    assert [size(n) for n in (0, 1023, 1536, 5 << 30, 3 << 42)] == [
        "0 B",
        "1023 B",
        "1.5 KiB",
        "5.0 GiB",
        "12.0 TiB",
    ]


def test_a_long_text_is_cut() -> None:
    assert cut("abcdef", 4) == "abc…"
    assert cut("abcd", 4) == "abcd"


def test_counts() -> None:
    assert [count(1, "process"), count(2, "process"), count(0, "job")] == [
        "1 process",
        "2 processes",
        "0 jobs",
    ]
