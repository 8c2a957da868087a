"""Choosing the nodes on which memory is parked."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedhook.agent.park_nodes import match_nodes
from schedhook.testing.hosts import FakeNode
from schedhook.values.sets import NodeSet
from tests.unit.topologies import GIB, KINDS, hosts, make_topology, may_be_chosen


@given(hosts(), st.data())
def test_parking_keeps_apart_what_was_apart_and_needs_processors(
    host: list[FakeNode], data: st.DataObject
) -> None:
    topology, numbers = make_topology(host), [node.number for node in host]
    some = st.sets(st.sampled_from(numbers))
    sizes = st.integers(0, 80 * GIB)
    needed = {node: data.draw(sizes) for node in data.draw(some)}
    occupied, candidates = NodeSet(data.draw(some)), NodeSet(data.draw(some))
    nodes = match_nodes(needed, occupied, candidates, topology, 0)
    if nodes is None:
        return
    free = {node.number: node.free for node in host}
    assert set(nodes) == {node for node, size in needed.items() if size}
    assert len(set(nodes.values())) == len(nodes)
    assert set(nodes.values()) <= candidates - set(needed)
    assert all(free[new] >= needed[old] for old, new in nodes.items())
    assert set(nodes.values()) <= may_be_chosen(host)


@pytest.mark.parametrize("kind", KINDS)
def test_all_of_a_node_is_parked_where_there_are_processors(kind: str) -> None:
    """Every other node is offered; one with processors and room is found if there is one."""
    host = KINDS[kind].nodes()
    topology, allowed = make_topology(host), may_be_chosen(host)
    for home in topology.memory_nodes:
        offered = topology.memory_nodes - {home}
        found = match_nodes({home: GIB // 2}, NodeSet({home}), offered, topology, 0)
        assert (found is not None) == bool(allowed - {home})
        assert set(found.values() if found else ()) <= allowed


def test_the_memory_of_a_gpu_is_no_parking() -> None:
    topology = make_topology(KINDS["gpus, grace hopper"].nodes())
    busy, others = NodeSet({0}), topology.memory_nodes - {0}
    assert match_nodes({0: 50 * GIB}, busy, others, topology, 64 << 20) == {0: 1}
    assert match_nodes({0: 50 * GIB}, busy, others - {1}, topology, 64 << 20) is None


def test_nodes_that_no_job_uses_come_first_then_the_nearest() -> None:
    topology = make_topology(KINDS["eight nodes"].nodes())
    assert match_nodes({0: GIB}, NodeSet({0, 1}), topology.memory_nodes, topology, 0) == {0: 2}
    assert match_nodes({4: GIB}, NodeSet({0, 1}), topology.memory_nodes, topology, 0) == {4: 5}


def test_what_others_are_entitled_to_is_no_parking() -> None:
    topology = make_topology(KINDS["eight nodes"].nodes())
    room = topology.room(2)
    for claimed, chosen in ((room - GIB, {0: 2}), (room - GIB + 1, {0: 3})):
        topology = replace(topology, claimed={2: claimed})
        nodes = topology.memory_nodes
        assert match_nodes({0: GIB}, NodeSet({0, 1}), nodes, topology, 0) == chosen
