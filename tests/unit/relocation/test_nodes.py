"""Node maps from nodes, processors and mappers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from schedhook.backends.simulated import SimulatedArea, SimulatedBackend, four_nodes
from schedhook.control.affinity import Binding
from schedhook.roles.strategy import Pages
from schedhook.values.errors import PluginError, UsageError
from schedhook.values.model import NodeMap, Outcome
from schedhook.values.sets import CpuSet, NodeSet
from tests.unit.relocation.simulation import AT, host, residency, run
from tests.unit.topologies import KINDS, make_topology, may_be_chosen


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


def with_a_bare_node(bare: int, distances: Mapping[int, int] = {}) -> SimulatedBackend:
    """Return a backend on which one node has a processor but no memory."""
    whole = four_nodes()
    node = replace(whole.nodes[bare], memory_total=0, memory_free=0, distances=distances)
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
    backend = with_a_bare_node(0, {1: 12})
    backend.add_process(100, areas=[SimulatedArea(start=AT, nodes=[3] * 4)])
    report = run(backend, sources=NodeSet({3}), cpus=CpuSet({0}))
    assert (report.outcome, residency(backend)) == (Outcome.COMPLETE, {1: 4})


def on(kind: str, pages: int = 4) -> SimulatedBackend:
    """Return a host of this kind, whose process 100 has memory on each node."""
    nodes = KINDS[kind].nodes()
    backend = SimulatedBackend(topology=make_topology(nodes))
    here = [node.number for node in nodes if node.memory]
    areas = [SimulatedArea(start=AT + (n << 30), nodes=[n] * pages) for n in here]
    backend.add_process(100, areas=areas)
    return backend


@pytest.mark.parametrize("kind", KINDS)
def test_processors_never_lead_to_a_node_without_processors(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Binding, "bind", lambda *_: None)
    nodes = KINDS[kind].nodes()
    for node in nodes:
        if node.cpus:
            cpus = CpuSet.parse(node.cpus)
            backend = on(kind)
            sources = backend.topology().memory_nodes
            report = run(backend, sources=sources, cpus=cpus, strategy="move-pages")
            assert report.node_map.destinations <= may_be_chosen(nodes)


@pytest.mark.parametrize("kind", KINDS)
def test_a_strategy_that_chooses_nodes_is_not_offered_those_without_processors(kind: str) -> None:
    nodes = KINDS[kind].nodes()
    offered: set[int] = set()

    def choose(pages: Pages) -> None:
        offered.update(pages.allowed)
        assert pages.node in may_be_chosen(nodes)

    run(on(kind), choose=choose, sources=None, destinations=None)
    assert offered <= may_be_chosen(nodes)


def test_memory_of_gpus_stays_unless_it_is_named() -> None:
    kind = "gpus, grace hopper"
    backend = on(kind)
    report = run(backend, sources=None, destinations=NodeSet({1}))
    assert report.outcome is Outcome.COMPLETE
    assert residency(backend) == {1: 8, 2: 4, 10: 4}
    named = run(on(kind), sources=NodeSet({2}), destinations=NodeSet({1}))
    assert named.bytes_moved > 0


def test_memory_goes_to_a_gpu_with_a_warning_if_it_is_named() -> None:
    report = run(on("gpus, grace hopper"), sources=NodeSet({0}), destinations=NodeSet({10}))
    assert report.outcome is Outcome.COMPLETE
    assert any("node 10 is memory of a GPU" in note for note in report.notes)
    report = run(on("gpus, grace hopper"), sources=NodeSet({0}), destinations=NodeSet({1}))
    assert not any("GPU" in note for note in report.notes)


def test_a_strategy_that_chooses_nodes_keeps_to_the_destinations() -> None:
    backend = host([0] * 4 + [1] * 4 + [2] * 4)
    seen: list[tuple[int, NodeSet]] = []

    def choose(pages: Pages) -> int:
        seen.append((pages.node, pages.allowed))
        return max(pages.allowed)

    report = run(backend, choose=choose, sources=None, destinations=NodeSet({2, 3}))
    assert report.outcome is Outcome.COMPLETE
    assert residency(backend) == {2: 4, 3: 8}
    assert set(seen) == {(0, NodeSet({2, 3})), (1, NodeSet({2, 3}))}
    assert report.notes == ()
    assert (report.node_map.mapper, str(report.node_map)) == ("by-page", "")


def test_a_strategy_that_chooses_another_node_than_the_destinations_is_refused() -> None:
    backend = host([0] * 4)
    report = run(backend, choose=lambda _: 1, sources=None, destinations=NodeSet({2, 3}))
    assert report.outcome is Outcome.REFUSED
    assert residency(backend) == {0: 4}


def test_from_everywhere_else_there_may_be_nothing() -> None:
    report = run(host([0] * 4), sources=None, destinations=NodeSet(range(4)))
    assert report.outcome is Outcome.NOTHING_TO_DO


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        ({"sources": NodeSet({0}), "destinations": NodeSet({7})}, "node 7 is not online"),
        ({"sources": NodeSet({7}), "destinations": NodeSet({0})}, "node 7 is not online"),
        ({"node_map": "0:3"}, "node 3 is not online"),
        ({"sources": None, "cpus": CpuSet({9})}, "no processor 9 is online"),
    ],
)
def test_wrong_nodes_are_errors_on_a_host_with_one_node(
    request_: dict[str, Any], says: str
) -> None:
    backend = SimulatedBackend(topology=make_topology(KINDS["one node"].nodes()))
    backend.add_process(100, areas=[SimulatedArea(start=AT, nodes=[0] * 4)])
    with pytest.raises(UsageError, match=says):
        run(backend, **request_)
    fine = run(backend, sources=NodeSet({0}), destinations=NodeSet({0}))
    assert fine.outcome is Outcome.NOTHING_TO_DO
