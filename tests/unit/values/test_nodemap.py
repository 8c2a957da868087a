"""Moves are put in an order in which arrived memory can be told from memory that must leave."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from schedhook.values.nodemap import in_order

NODES = st.integers(0, 5)
MOVES = st.lists(st.dictionaries(NODES, NODES, max_size=4), max_size=5)


def test_a_node_is_vacated_before_memory_arrives() -> None:
    assert in_order([("a", {3: 1}), ("b", {1: 0})]) == [({1: 0}, ["b"]), ({3: 1}, ["a", "b"])]
    assert in_order([("a", {0: 1, 1: 2})]) == [({1: 2}, ["a"]), ({0: 1}, ["a"])]
    assert in_order([("a", {0: 0})]) == []


def test_only_a_member_that_exchanges_nodes_itself_has_a_step_that_overlaps() -> None:
    """The others' memory on their new nodes has arrived: allocated there, or by the kernel."""
    moves = [("a", {0: 1}), ("b", {1: 0}), ("c", {0: 1, 1: 0})]
    assert in_order(moves) == [({0: 1}, ["a"]), ({1: 0}, ["b"]), ({0: 1, 1: 0}, ["c"])]


def test_members_whose_pairs_fit_one_map_form_a_step() -> None:
    moves = [("a", {0: 2}), ("b", {1: 3}), ("c", {0: 3}), ("d", {0: 2, 1: 3})]
    assert in_order(moves) == [({0: 2, 1: 3}, ["a", "b", "d"]), ({0: 3}, ["c"])]


@given(MOVES)
def test_a_members_memory_goes_once_to_where_its_pairs_say(moves: list[dict[int, int]]) -> None:
    steps = in_order(enumerate(moves))
    for member, its in enumerate(moves):
        for start, wanted in its.items():
            node, times = start, 0
            for step, members in steps:
                if member in members and node in step:
                    node, times = step[node], times + 1
            assert (node, times) == (wanted, int(start != wanted))


@given(MOVES)
def test_a_step_fills_only_vacated_nodes_unless_they_form_a_circle(
    moves: list[dict[int, int]],
) -> None:
    pairs = {pair for its in moves for pair in its.items() if pair[0] != pair[1]}
    steps = [step for step, _ in in_order(enumerate(moves))]
    for position, step in enumerate(steps):
        leaving = {old for later in steps[position:] for old in later}
        for old, new in step.items():
            assert new not in leaving or leads_to(new, old, pairs), (old, new)


def leads_to(node: int, wanted: int, pairs: set[tuple[int, int]]) -> bool:
    """Return whether memory could get from one node to the other by any of the pairs."""
    found, new = set[int](), {node}
    while new:
        found |= new
        new = {b for a, b in pairs if a in new} - found
    return wanted in found
