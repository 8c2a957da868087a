"""Which nodes are local to processors, and on which memory is off-node."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedhook.host.locality import local_nodes, off_nodes
from schedhook.host.topology import Topology
from schedhook.testing.hosts import FakeNode
from schedhook.values.model import Placement
from schedhook.values.sets import CpuSet, NodeSet
from tests.unit.topologies import KINDS, hosts, make_topology


def on(topology: Topology, cpus: str | CpuSet) -> Placement:
    """Return the placement of a process on these processors."""
    cpus = CpuSet.parse(cpus) if isinstance(cpus, str) else cpus
    return Placement(cpus=cpus, nodes=topology.memory_nodes_of(cpus))


@pytest.mark.parametrize(
    ("kind", "cpus", "local", "off"),
    [
        ("two sockets", "0", "0", "1"),
        ("hbm, snc4 flat", "0-3", "0,8", "1-7,9-15"),
        ("hbm, snc4 flat", "20-31", "5-7,13-15", "0-4,8-12"),
        ("cxl expander", "0-3", "0", "1-2"),
        ("cxl expander", "4-7", "1-2", "0"),
        ("persistent memory", "0-3", "0,2", "1,3"),
        ("tiers without distances", "0-1", "0,4,6,8-9", "1-2"),
        ("gpus, grace hopper", "0", "0,2", "1"),
        ("memoryless between equals", "5", "0,2", ""),
        ("memoryless nodes", "5", "0", "2"),
        ("processors and memory apart", "0-7", "1-2", ""),
        ("numa=fake", "0", "0-1", "2-3"),
        ("all sorts", "0-3", "0,4-6,9", "1-2"),
    ],
)
def test_local_and_off_node(kind: str, cpus: str, local: str, off: str) -> None:
    topology = make_topology(KINDS[kind].nodes())
    placement = on(topology, cpus)
    assert local_nodes(topology, placement) & topology.memory_nodes == NodeSet.parse(local)
    assert off_nodes(topology, placement) == NodeSet.parse(off)


@pytest.mark.parametrize(
    ("policies", "off"),
    [
        ([], "1-7,9-15"),
        (["default", "local"], "1-7,9-15"),
        (["bind:9"], "1-7,10-15"),
        (["default", "prefer:12", "bind=static:13-14"], "1-7,9-11,15"),
        (["interleave:0-15"], "1-7"),
        (["prefer (many):8-9"], "1-7,10-15"),
        (["weighted interleave:0,15"], "1-7,9-14"),
        (["bind:1"], "1-7,9-15"),
        (["a policy of a kernel to come:9"], "1-7,9-15"),
    ],
)
def test_memory_that_a_policy_put_on_a_node_without_processors_is_there_on_purpose(
    policies: list[str], off: str
) -> None:
    topology = make_topology(KINDS["hbm, snc4 flat"].nodes())
    assert off_nodes(topology, on(topology, "0-3"), policies) == NodeSet.parse(off)


def test_memory_that_the_kernel_demoted_is_there_on_purpose() -> None:
    topology = make_topology(KINDS["cxl expander"].nodes())
    placement = on(topology, "0-3")
    assert off_nodes(topology, placement) == {1, 2}
    assert off_nodes(replace(topology, demotes=True), placement) == {1}


def test_without_nodes_nothing_is_off_node() -> None:
    topology = make_topology(KINDS["two sockets"].nodes())
    assert off_nodes(topology, Placement(cpus=CpuSet({99}), nodes=NodeSet())) == NodeSet()


@given(hosts(), st.data())
def test_memory_of_gpus_and_of_the_own_nodes_is_never_off_node(
    host: list[FakeNode], data: st.DataObject
) -> None:
    topology = make_topology(host)
    some = st.frozensets(st.sampled_from([*topology.cpus] or [0])).map(CpuSet)
    placement = on(topology, data.draw(some))
    off = off_nodes(topology, placement)
    assert not off & topology.gpu_nodes
    assert not off & placement.nodes
    assert off <= topology.memory_nodes
    unbound = on(topology, topology.cpus)
    assert off_nodes(topology, unbound) <= topology.memory_only_nodes
