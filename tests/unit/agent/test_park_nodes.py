"""Choosing the nodes on which memory is parked."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from schedhook.agent.park_nodes import match_nodes
from schedhook.host.topology import Node, Topology
from schedhook.values.sets import CpuSet, NodeSet

MIB = 1 << 20


def topology(free: Mapping[int, int], distances: Mapping[tuple[int, int], int] = {}) -> Topology:
    return Topology(
        nodes={
            node: Node(
                number=node,
                cpus=CpuSet({2 * node, 2 * node + 1}),
                memory_total=8 * MIB,
                memory_free=size,
                distances={other: distances.get((node, other), 20) for other in free},
            )
            for node, size in free.items()
        }
    )


SIZES = st.dictionaries(st.integers(0, 4), st.integers(0, 8 * MIB), min_size=5, max_size=5)


@given(SIZES, st.sets(st.integers(0, 4)), SIZES, st.sets(st.integers(0, 4)))
def test_parking_keeps_apart_what_was_apart(
    needed: dict[int, int], candidates: set[int], free: dict[int, int], occupied: set[int]
) -> None:
    nodes = match_nodes(needed, NodeSet(occupied), NodeSet(candidates), topology(free), 0)
    if nodes is None:
        return
    assert set(nodes) == {node for node, size in needed.items() if size}
    assert len(set(nodes.values())) == len(nodes)
    assert set(nodes.values()) <= candidates - set(needed)
    assert all(free[new] >= needed[old] for old, new in nodes.items())
