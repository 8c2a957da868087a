"""Lists of address ranges."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schedhook.values.extents import Extents, PackedExtents


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
    cut = extents.cut(start, end)
    assert list(cut) == inside
    assert cut.size == extents.overlap(start, end)
    for at in {start, (start + end) // 2, end}:
        joined = extents.cut(0, at)
        joined.extend(extents.cut(at, 201))
        assert list(joined) == list(extents)


@pytest.mark.parametrize("unit", [1, 4096, 65536])
@given(points=st.sets(st.integers(0, 2000), min_size=1), start=st.integers(0, 1 << 30))
def test_packed_extents_are_the_same(points: set[int], start: int, unit: int) -> None:
    start = start * unit
    extents = Extents((start + each * unit, start + (each + 1) * unit) for each in sorted(points))
    packed = PackedExtents(extents, unit)
    assert list(packed.extents()) == list(extents)
    assert packed.memory <= min(16 * len(extents), (max(points) - min(points)) // 8 + 1)


def test_pages_that_alternate_take_a_bit_each() -> None:
    extents = Extents((each * 4096, (each + 1) * 4096) for each in range(0, 8192, 2))
    assert PackedExtents(extents, 4096).memory == 1024
    assert PackedExtents(Extents([(0, 1 << 40)]), 4096).memory == 16


def test_extents_ascend() -> None:
    extents = Extents([(10, 20)])
    for pair in ((30, 30), (15, 25)):
        with pytest.raises(ValueError, match="ascending"):
            extents.add(*pair)
    with pytest.raises(ValueError, match="ascending"):
        extents.extend(Extents([(15, 25), (30, 40)]))
    extents.extend(Extents())
    assert list(extents) == [(10, 20)]
