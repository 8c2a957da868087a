"""Node maps from nodes, processors and mappers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from schedhook.backends.simulated import SimulatedArea, SimulatedBackend, four_nodes
from schedhook.control.affinity import Binding
from schedhook.values.errors import (
    PluginError,
    UsageError,
)
from schedhook.values.model import NodeMap, Outcome
from schedhook.values.sets import CpuSet, NodeSet
from tests.unit.relocation.simulation import AT, host, residency, run


def test_a_mapper_that_leaves_the_destinations_is_an_error() -> None:
    def astray(old: NodeSet, _new: NodeSet, _topology: object) -> NodeMap:
        return NodeMap(pairs=dict.fromkeys(old, 3))

    with pytest.raises(PluginError, match="astray"):
        run(host([0]), mappers={"astray": astray}, mapper="astray")


def test_a_mapper_is_only_called_with_online_nodes() -> None:
    """The mapper `nearest` took hours for `--from 0-65535`."""

    def startled(old: NodeSet, new: NodeSet, _topology: object) -> NodeMap:
        raise AssertionError(old | new)

    for nodes in ({"sources": "0-9", "destinations": "1"}, {"sources": "0", "destinations": "8-9"}):
        sets = {key: NodeSet.parse(text) for key, text in nodes.items()}
        with pytest.raises(UsageError, match="9 is not online"):
            run(host([0]), mappers={"startled": startled}, mapper="startled", **sets)


def test_without_sources_memory_comes_from_everywhere_else() -> None:
    backend = host([0] * 5 + [1] * 4 + [2] * 3 + [3] * 2)
    report = run(backend, sources=None, destinations=NodeSet({2, 3}))
    assert report.outcome is Outcome.COMPLETE
    assert report.node_map.mapper == "nearest"
    assert set(report.node_map.pairs) == {0, 1}
    left = residency(backend)
    assert left.keys() == {2, 3}
    assert sum(left.values()) == 14


def test_a_named_mapper_pairs_everywhere_else_too() -> None:
    backend = host([0] * 5 + [1] * 4)
    report = run(backend, sources=None, destinations=NodeSet({3}), mapper="relative")
    assert (report.node_map.mapper, residency(backend)) == ("relative", {3: 9})


def with_a_bare_node(bare: int) -> SimulatedBackend:
    """Return a backend on which one node has a processor but no memory."""
    whole = four_nodes()
    node = replace(whole.nodes[bare], memory_total=0, memory_free=0)
    return SimulatedBackend(topology=replace(whole, nodes={**whole.nodes, bare: node}))


def test_a_destination_without_memory() -> None:
    backend = with_a_bare_node(2)
    backend.add_process(100, areas=[SimulatedArea(start=AT, nodes=[0] * 4)])
    with pytest.raises(UsageError, match="node 2 has no memory"):
        run(backend)
    assert residency(backend) == {0: 4}


def test_processors_of_a_node_without_memory_get_it_from_the_nearest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Binding, "bind", lambda *_: None)
    backend = with_a_bare_node(0)
    backend.add_process(100, areas=[SimulatedArea(start=AT, nodes=[3] * 4)])
    report = run(backend, sources=NodeSet({3}), cpus=CpuSet({0}))
    assert (report.outcome, residency(backend)) == (Outcome.COMPLETE, {1: 4})
