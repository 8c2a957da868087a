"""NodeSet and CpuSet read and write the kernel's list format."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedhook.values.sets import CpuSet, IdSet, NodeSet

ids = st.sets(st.integers(0, 300), max_size=60)


@given(ids)
def test_the_written_form_parses_to_the_same_set(numbers: set[int]) -> None:
    assert NodeSet.parse(str(NodeSet(numbers))) == numbers


@given(ids)
def test_the_written_form_is_ascending_with_joined_ranges(numbers: set[int]) -> None:
    text = str(NodeSet(numbers))
    ends = [[int(end) for end in part.split("-")] for part in text.split(",") if part]
    assert [end for pair in ends for end in pair] == sorted(end for pair in ends for end in pair)
    assert all(after[0] - before[-1] > 1 for before, after in pairwise(ends))
    assert all(len(pair) == 1 or pair[0] < pair[1] for pair in ends)


@given(ids)
def test_iteration_ascends(numbers: set[int]) -> None:
    assert list(CpuSet(numbers)) == sorted(numbers)


@given(ids, ids)
def test_operations_are_those_of_sets_and_keep_the_type(first: set[int], second: set[int]) -> None:
    one, two = NodeSet(first), NodeSet(second)
    for result, expected in (
        (one | two, first | second),
        (one & two, first & second),
        (one - two, first - second),
    ):
        assert type(result) is NodeSet
        assert result == expected


@given(st.lists(st.tuples(st.integers(0, 99), st.integers(0, 9)), max_size=8))
def test_order_and_overlap_of_the_parts_do_not_matter(ranges: list[tuple[int, int]]) -> None:
    text = ",".join(f"{low}-{low + width}" for low, width in ranges)
    expected = {number for low, width in ranges for number in range(low, low + width + 1)}
    assert NodeSet.parse(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("\n", []),
        ("0\n", [0]),
        (" 0-2 , 8 ", [0, 1, 2, 8]),
        ("3,1", [1, 3]),
        ("5-5", [5]),
        ("0,", [0]),
    ],
)
def test_reads(text: str, expected: list[int]) -> None:
    assert list(IdSet.parse(text)) == expected


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("a", "'a'"),
        ("0-", "'0-'"),
        ("-1", "'-1'"),
        ("0,2-x", "'2-x'"),
        ("3-1", "'3-1'"),
        ("0x1", "'0x1'"),
        ("1.5", "'1.5'"),
        ("1 2", "'1 2'"),
        ("٣", "'٣'"),
        ("0-99999999999", "'0-99999999999'"),
        ("0-3:1/2", "'0-3:1/2'"),
    ],
)
def test_an_error_names_the_wrong_part(text: str, part: str) -> None:
    with pytest.raises(ValueError, match=r"number|range") as caught:
        IdSet.parse(text)
    assert part in str(caught.value)


@given(st.text(max_size=20))
def test_any_text_is_parsed_or_refused_in_one_line(text: str) -> None:
    try:
        numbers = NodeSet.parse(text)
    except ValueError as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert all(number >= 0 for number in numbers)


def test_repr_shows_type_and_content() -> None:
    assert repr(NodeSet({2, 0, 1})) == "NodeSet('0-2')"
