"""Lists of address ranges."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schedhook.values.extents import Extents


@settings(deadline=None)
@given(
    st.sets(st.integers(0, 200)),
    st.integers(0, 200),
    st.integers(0, 200),
)
def test_extents_are_sets_of_addresses(points: set[int], start: int, end: int) -> None:
    extents = Extents((point, point + 1) for point in sorted(points))
    assert extents.size == len(points)
    assert {each for first, last in extents for each in range(first, last)} == points
    assert extents.overlap(start, end) == len(points & set(range(start, end)))
    assert len(extents.raw()) == 16 * len(extents)
    assert list(Extents.from_raw(extents.raw())) == list(extents)
    inside, outside = list(extents.within(start, end)), list(extents.outside(start, end))
    assert {each for pair in inside for each in range(*pair)} == points & set(range(start, end))
    assert {each for pair in outside for each in range(*pair)} == set(range(start, end)) - points
    assert all(first < last for first, last in inside + outside)


def test_extents_ascend() -> None:
    extents = Extents([(10, 20)])
    for pair in ((30, 30), (15, 25)):
        with pytest.raises(ValueError, match="ascending"):
            extents.add(*pair)
