"""The two rules for node maps, compared with the kernel's algorithm and with brute force."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from random import Random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from schedhook.host.topology import Node, Topology
from schedhook.values.errors import UsageError
from schedhook.values.model import NodeMap
from schedhook.values.nodemap import as_kernel_calls, kernel_rule, parse_map
from schedhook.values.sets import NodeSet
from schedhook_plugins.mappers import cheapest, nearest, relative

DOCUMENT = Path(__file__).parents[3] / "docs/reference/node-maps.md"
MAPPERS = [relative, nearest]
FLAT = Topology(nodes={})
"""A host without distances; the kernel's default is used for all."""


def node_sets(most: int = 9, largest: int = 12) -> st.SearchStrategy[NodeSet]:
    numbers = st.integers(0, largest)
    return st.sets(numbers, min_size=1, max_size=most).map(NodeSet)


def maps(largest: int = 7) -> st.SearchStrategy[dict[int, int]]:
    return st.dictionaries(st.integers(0, largest), st.integers(0, largest))


@st.composite
def topologies(draw: st.DrawFn, count: int = 8, farthest: int = 14) -> Topology:
    """Few different distances, so that ties are common; not symmetric, as on real hosts."""
    distances = st.fixed_dictionaries(
        {node: st.integers(11, farthest) for node in range(count)},
    )
    return Topology(
        nodes={
            node: Node(number=node, distances=draw(distances) | {node: 10}) for node in range(count)
        }
    )


class Memory:
    """Pages on nodes; each page is the number of the node on which it began."""

    def __init__(self, nodes: Iterable[int]) -> None:
        self.pages = {node: [node] for node in nodes}

    def migrate_pages(self, sources: NodeSet, destinations: NodeSet) -> None:
        """Move pages as the kernel's do_migrate_pages() does.

        Of the sources that are left, the next is one whose destination is not itself a source; if
        there is none, the last one seen.
        """
        left = set(sources)
        while True:
            pair: tuple[int, int] | None = None
            for source in sorted(left):
                if len(sources) != len(destinations) and source in destinations:
                    continue
                ordinal = sorted(sources).index(source)
                target = sorted(destinations)[ordinal % len(destinations)]
                if target == source:
                    continue
                pair = source, target
                if target not in left:
                    break
            if pair is None:
                return
            source, target = pair
            left.discard(source)
            self.pages[target] += self.pages[source]
            self.pages[source] = []

    @property
    def whereabouts(self) -> dict[int, int]:
        return {page: node for node, pages in self.pages.items() for page in pages}


def has_cycle(pairs: Mapping[int, int]) -> bool:
    for start in pairs:
        node, steps = start, 0
        while node in pairs and pairs[node] != node and steps <= len(pairs):
            node, steps = pairs[node], steps + 1
        if steps > len(pairs):
            return True
    return False


@given(node_sets(), node_sets())
def test_kernel_rule_is_what_the_kernel_does(old: NodeSet, new: NodeSet) -> None:
    memory = Memory(range(13))
    memory.migrate_pages(old, new)
    rule = kernel_rule(old, new)
    assert memory.whereabouts == {page: rule.get(page, page) for page in range(13)}


@given(node_sets(), node_sets())
def test_relative_is_total_and_stays_inside(old: NodeSet, new: NodeSet) -> None:
    node_map = relative(old, new, FLAT)
    assert set(node_map.pairs) == set(old)
    assert set(node_map.pairs.values()) <= set(new)
    assert node_map == relative(NodeSet(reversed(list(old))), new, FLAT)
    if len(old) == len(new):
        assert list(node_map.pairs.values()) == list(new)
    else:
        assert all(node_map.pairs[node] == node for node in old & new)
    assert ("wraps" in node_map.note) == (len(old) > len(new))


@given(node_sets(), node_sets(), topologies())
def test_notes_name_every_node_that_shares_or_gets_nothing(
    old: NodeSet, new: NodeSet, topology: Topology
) -> None:
    for mapper in MAPPERS:
        node_map = mapper(old, new, topology)
        used = list(node_map.pairs.values())
        told = {
            int(target): NodeSet.parse(guests)
            for guests, target in re.findall(r"([\d,-]+) to (\d+)", node_map.note)
        }
        assert told == {
            node: NodeSet(old for old, to in node_map.pairs.items() if to == node)
            for node in used
            if used.count(node) > 1
        }
        unused = re.search(r"nothing goes to ([\d,-]+)", node_map.note)
        assert NodeSet.parse(unused[1] if unused else "") == new - NodeSet(used)


def even_maps(old: NodeSet, new: NodeSet) -> Iterable[tuple[int, ...]]:
    """Every map that `nearest` may choose from, as the new nodes of the old ones in order."""
    least, most = len(old) // len(new), math.ceil(len(old) / len(new))
    choices = [[node] if node in new else list(new) for node in old]
    for chosen in itertools.product(*choices):
        if all(least <= chosen.count(node) <= most for node in new):
            yield chosen


@given(node_sets(5, 7), node_sets(5, 7), topologies())
def test_nearest_is_the_best_of_all_even_maps(
    old: NodeSet, new: NodeSet, topology: Topology
) -> None:
    def total(chosen: tuple[int, ...]) -> int:
        return sum(topology.distance(a, b) for a, b in zip(old, chosen, strict=True))

    best = min(even_maps(old, new), key=lambda chosen: (total(chosen), chosen))
    assert nearest(old, new, topology).pairs == dict(zip(old, best, strict=True))


@given(st.integers(1, 5), st.integers(0, 2), st.randoms(use_true_random=False))
def test_cheapest_assignment(rows: int, spare: int, random: Random) -> None:
    columns = range(rows + spare)
    # Many matrices in one example: few of them need a chain of changes.
    for _ in range(20):
        costs = [[random.randint(-9, 9) for _ in columns] for _ in range(rows)]

        def total(chosen: Iterable[int], costs: list[list[int]] = costs) -> int:
            return sum(row[column] for row, column in zip(costs, chosen, strict=True))

        chosen = cheapest(costs)
        assert len(set(chosen)) == rows
        assert total(chosen) == min(map(total, itertools.permutations(columns, rows)))


def test_nearest_uses_every_new_node_even_if_others_are_nearer() -> None:
    near = {4: 11, 5: 12, 6: 40}
    topology = Topology(nodes={node: Node(number=node, distances=near) for node in range(4)})
    assert nearest(NodeSet(range(4)), NodeSet({4, 5, 6}), topology).pairs == {
        0: 4,
        1: 4,
        2: 5,
        3: 6,
    }


def test_nearest_on_a_large_host_pairs_every_node_with_its_neighbour() -> None:
    """64 nodes in a ring of 128, each old one between two new ones: too many for brute force."""
    size = 128
    ring = {
        a: {b: 10 + min(abs(a - b), size - abs(a - b)) for b in range(size)} for a in range(size)
    }
    topology = Topology(nodes={a: Node(number=a, distances=ring[a]) for a in ring})
    node_map = nearest(NodeSet(range(0, size, 2)), NodeSet(range(1, size, 2)), topology)
    # Both directions round the ring cost the same; the lowest first node decides.
    assert node_map.pairs == {node: node + 1 for node in range(0, size, 2)}


@given(maps())
def test_kernel_calls_perform_the_map_and_nothing_else(pairs: dict[int, int]) -> None:
    calls = as_kernel_calls(pairs)
    if calls is None:
        assert has_cycle(pairs)
        return
    memory = Memory(range(8))
    for sources, destinations in calls:
        memory.migrate_pages(sources, destinations)
    assert memory.whereabouts == {page: pairs.get(page, page) for page in range(8)}


@given(maps())
def test_every_map_without_a_cycle_has_kernel_calls(pairs: dict[int, int]) -> None:
    assert (as_kernel_calls(pairs) is None) == has_cycle(pairs)


@given(node_sets(), node_sets())
def test_a_map_by_the_rule_takes_one_call(old: NodeSet, new: NodeSet) -> None:
    pairs = kernel_rule(old, new)
    # The kernel's rule counts a new node that gets no pages, but a map does not contain it.
    assume(NodeSet(pairs.values()) == new)
    calls = as_kernel_calls(pairs)
    assert calls is not None
    assert len(calls) == (0 if all(a == b for a, b in pairs.items()) else 1)


@pytest.mark.parametrize("mapper", MAPPERS)
@pytest.mark.parametrize(("old", "new", "which"), [("", "0", "old"), ("0", "", "new")])
def test_empty_sets_are_refused(mapper, old: str, new: str, which: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UsageError, match=f"set of {which} nodes is empty"):
        mapper(NodeSet.parse(old), NodeSet.parse(new), FLAT)


@given(maps(1000).filter(bool))
def test_written_maps_read_back(pairs: dict[int, int]) -> None:
    written = NodeMap(pairs=pairs)
    assert parse_map(str(written)) == written
    assert parse_map(str(written).replace(",", " , ").replace(":", " : ")) == written


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "'' is not OLD:NEW"),
        ("0", "'0' is not OLD:NEW"),
        ("0:", "'0:' is not OLD:NEW"),
        (":1", "':1' is not OLD:NEW"),
        ("0:1,", "'' is not OLD:NEW"),
        ("0:1:2", "'0:1:2' is not OLD:NEW"),
        ("0-1:2-3", "'0-1:2-3' is not OLD:NEW"),
        ("-1:2", "'-1:2' is not OLD:NEW"),
        ("0:x", "'0:x' is not OLD:NEW"),
        ("0:99999999999", "is not OLD:NEW"),
        ("0:1,0:1", "node 0 is mapped twice"),
        ("0:1,2:3,0:4", "node 0 is mapped twice"),
    ],
)
def test_bad_maps_are_refused(text: str, complaint: str) -> None:
    with pytest.raises(UsageError, match=re.escape(complaint)):
        parse_map(text)


def documented(header: str) -> list[list[str]]:
    """The rows of the document's table with this header."""
    lines = DOCUMENT.read_text().splitlines()
    assert header in lines, f"{DOCUMENT} has no table {header}"
    rows = itertools.takewhile(lambda line: line.startswith("|"), lines[lines.index(header) + 2 :])
    table = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert table
    return table


def documented_topology() -> Topology:
    block = DOCUMENT.read_text().split("```")[1].strip("\n").splitlines()[1:]
    rows = [[int(word) for word in line.split()] for line in block]
    return Topology(
        nodes={row[0]: Node(number=row[0], distances=dict(enumerate(row[1:]))) for row in rows}
    )


@pytest.mark.parametrize(("old", "new", "pairs"), documented("| old | new | relative |"))
def test_relative_is_as_documented(old: str, new: str, pairs: str) -> None:
    assert str(relative(NodeSet.parse(old), NodeSet.parse(new), FLAT)) == pairs


@pytest.mark.parametrize(
    ("old", "new", "near", "rel"), documented("| old | new | nearest | relative |")
)
def test_nearest_is_as_documented(old: str, new: str, near: str, rel: str) -> None:
    sets = NodeSet.parse(old), NodeSet.parse(new)
    assert str(nearest(*sets, documented_topology())) == near
    assert str(relative(*sets, documented_topology())) == rel


@pytest.mark.parametrize(("pairs", "said"), documented("| map | calls of migrate_pages |"))
def test_kernel_calls_are_as_documented(pairs: str, said: str) -> None:
    calls = as_kernel_calls(parse_map(pairs).pairs)
    if calls is None:
        assert said == "impossible"
    else:
        assert said == (", ".join(f"{old} → {new}" for old, new in calls) or "none")
