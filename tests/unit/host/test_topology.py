"""Nodes, processors, distances and memory, on hosts of unusual shapes."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given

from schedhook.host.topology import HugePool, read_topology
from schedhook.testing.hosts import FakeNode, write_file, write_host
from schedhook.values.errors import SchedhookError, UsageError
from schedhook.values.sets import CpuSet, NodeSet
from tests.unit.topologies import KINDS, hosts, make_topology, may_be_chosen

MIB = 1 << 20


def test_reads_processors_memory_and_pools(tmp_path: Path) -> None:
    pools = [(1 << 30, 1, 0), (2 * MIB, 8, 3)]
    write_host(
        tmp_path,
        [
            FakeNode(number=0, cpus="0-1,4", memory=100 * MIB, free=40 * MIB, huge_pools=pools),
            FakeNode(number=1, cpus="2-3", reclaimable=7 * MIB),
        ],
    )
    topology = read_topology(tmp_path)
    assert topology.cpus == CpuSet.parse("0-4")
    node = topology.node(0)
    assert (node.memory_total, node.memory_free) == (100 * MIB, 40 * MIB)
    assert topology.room(0) == 40 * MIB
    assert topology.node(1).memory_reclaimable == 7 * MIB
    assert node.huge_pools == (
        HugePool(size=2 * MIB, total=8, free=3),
        HugePool(size=1 << 30, total=1, free=0),
    )
    assert topology.node(1).huge_pools == ()


def test_numbers_with_gaps_and_offline_nodes(tmp_path: Path) -> None:
    nodes = [
        FakeNode(number=0, cpus="0", distances={33: 22, 72: 16}),
        FakeNode(number=2, cpus="1", online=False),
        FakeNode(number=33, cpus="2"),
        FakeNode(number=72, cpus="3"),
    ]
    write_host(tmp_path, nodes)
    topology = read_topology(tmp_path)
    assert topology.online == NodeSet.parse("0,33,72")
    assert topology.cpus == {0, 2, 3}
    # The columns of the distance file are the online nodes: the third is node 72, not node 2.
    assert [topology.distance(0, other) for other in (0, 33, 72)] == [10, 22, 16]
    with pytest.raises(UsageError, match=r"node 2 is not online; the online nodes are 0,33,72"):
        topology.room(2)


def test_nodes_without_memory_and_without_processors(tmp_path: Path) -> None:
    nodes = [
        FakeNode(number=0, cpus="0-3"),
        # It has directories of huge pages nevertheless.
        FakeNode(number=1, cpus="4-7", memory=0, free=0, huge_pools=[(2 * MIB, 0, 0)]),
        FakeNode(number=2, distances={1: 17}),
    ]
    write_host(tmp_path, nodes)
    topology = read_topology(tmp_path)
    assert topology.memory_nodes == {0, 2}
    assert topology.cpu_nodes == {0, 1}
    assert topology.online == {0, 1, 2}
    assert [topology.homes_of(node) for node in range(3)] == [{0}, {0}, {2}]
    assert topology.memory_nodes_of(CpuSet({5})) == {0}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_host_is_read_as_it_was_written(tmp_path: Path, kind: str) -> None:
    nodes = KINDS[kind].nodes()
    write_host(tmp_path, nodes)
    assert read_topology(tmp_path) == make_topology(nodes)


@given(hosts())
def test_the_default_nodes_have_processors(nodes: list[FakeNode]) -> None:
    topology = make_topology(nodes)
    allowed = may_be_chosen(nodes)
    assert topology.default_nodes == allowed
    assert topology.memory_nodes_of(topology.cpus) <= allowed
    for node in topology.nodes:
        if node in topology.cpu_nodes and topology.memory_nodes:
            assert topology.homes_of(node) <= allowed
        assert topology.find_room(node, 0, topology.online) in {*allowed, None}
        assert topology.preferred(topology.memory_nodes) <= (allowed or topology.memory_nodes)
        assert not topology.elsewhere(NodeSet({node})) & topology.gpu_nodes


@pytest.mark.parametrize(
    ("kind", "cpus", "nodes"),
    [
        ("memoryless between equals", "4-7", "0,2"),
        ("memoryless nodes", "4-7", "0"),
        ("memoryless beside a gpu", "0-3", "1"),
        ("processors and memory apart", "0-7", "1-2"),
        ("numa=fake", "0-3", "0-1"),
        ("hbm, snc4 flat", "0-3", "0"),
    ],
)
def test_the_nodes_of_processors_memory(kind: str, cpus: str, nodes: str) -> None:
    """Equally near nodes of a node without memory are all local."""
    topology = make_topology(KINDS[kind].nodes())
    assert topology.memory_nodes_of(CpuSet.parse(cpus)) == NodeSet.parse(nodes)


def test_a_gpus_driver_names_its_node(tmp_path: Path) -> None:
    write_host(tmp_path, [FakeNode(number=0, cpus="0"), FakeNode(number=1), FakeNode(number=2)])
    gpus = "proc/driver/nvidia/gpus"
    write_file(tmp_path, f"{gpus}/0009:01:00.0/numa_status", "Node: 2\nNUMA initialized: 1\n")
    write_file(tmp_path, f"{gpus}/0019:01:00.0/numa_status", "Node: -1\nStatus: offline\n")
    write_file(tmp_path, f"{gpus}/0029:01:00.0/information", "Model: none\n")
    assert read_topology(tmp_path).gpu_nodes == {2}


def test_memory_that_gpu_and_processors_share_is_not_a_gpus(tmp_path: Path) -> None:
    write_host(tmp_path, [FakeNode(number=0, cpus="0", is_gpu=True)])
    topology = read_topology(tmp_path)
    assert topology.gpu_nodes == NodeSet()
    assert topology.default_nodes == {0}


@pytest.mark.parametrize(("text", "demotes"), [("true\n", True), ("1\n", True), ("false\n", False)])
def test_whether_the_kernel_demotes(tmp_path: Path, text: str, demotes: bool) -> None:
    write_host(tmp_path, [FakeNode(number=0, cpus="0"), FakeNode(number=1)])
    assert not read_topology(tmp_path).demotes
    write_file(tmp_path, "sys/kernel/mm/numa/demotion_enabled", text)
    assert read_topology(tmp_path).demotes == demotes


def test_nodes_of_processors_and_back(tmp_path: Path) -> None:
    write_host(tmp_path, [FakeNode(number=n, cpus=f"{2 * n}-{2 * n + 1}") for n in range(4)])
    topology = read_topology(tmp_path)
    assert topology.nodes_of(CpuSet.parse("1-2,99")) == NodeSet.parse("0-1")
    assert topology.cpus_of({1, 3, 99}) == CpuSet.parse("2-3,6-7")
    assert topology.nodes_of([]) == NodeSet()


def test_unknown_distances_are_the_kernels_defaults(tmp_path: Path) -> None:
    write_host(tmp_path, [FakeNode(number=0, cpus="0"), FakeNode(number=1, cpus="1")])
    (tmp_path / "sys/devices/system/node/node0/distance").unlink()
    topology = read_topology(tmp_path)
    assert (topology.distance(0, 0), topology.distance(0, 1)) == (10, 20)
    assert (topology.distance(7, 7), topology.distance(7, 8)) == (10, 20)


def test_a_distance_table_of_other_nodes_is_ignored(tmp_path: Path) -> None:
    write_host(tmp_path, [FakeNode(number=0, cpus="0"), FakeNode(number=1, cpus="1")])
    write_file(tmp_path, "sys/devices/system/node/node0/distance", "10 31 32 33\n")
    assert read_topology(tmp_path).distance(0, 1) == 20


def test_an_older_table_may_have_a_column_per_possible_node(tmp_path: Path) -> None:
    write_host(tmp_path, [FakeNode(number=0, online=False), FakeNode(number=1, cpus="1")])
    write_file(tmp_path, "sys/devices/system/node/node1/distance", "21 10\n")
    topology = read_topology(tmp_path)
    assert (topology.distance(1, 0), topology.distance(1, 1)) == (21, 10)


def test_blanks_before_the_values_are_ignored(tmp_path: Path) -> None:
    write_host(tmp_path, [FakeNode(number=0, cpus=" 0-1"), FakeNode(number=1, cpus="2")])
    write_file(tmp_path, "sys/devices/system/node/online", " 0-1\n")
    write_file(tmp_path, "sys/devices/system/node/node0/distance", "  10  21\n")
    write_file(tmp_path, "sys/devices/system/node/node0/meminfo", "\nNode 0 MemTotal:   8 kB\n")
    topology = read_topology(tmp_path)
    assert topology.online == {0, 1}
    assert topology.distance(0, 1) == 21
    assert topology.node(0).memory_total == 8192
    assert topology.node(0).memory_free == 0


def test_a_kernel_without_numa_is_one_node(tmp_path: Path) -> None:
    only = FakeNode(
        number=0,
        cpus="0-7",
        memory=64 * MIB,
        free=MIB,
        reclaimable=2 * MIB,
        huge_pools=[(2 * MIB, 4, 4)],
    )
    write_host(tmp_path, [only], numa=False)
    topology = read_topology(tmp_path)
    assert list(topology.nodes) == [0]
    assert topology.cpus == CpuSet.parse("0-7")
    assert topology.node(0).free_room == MIB
    assert topology.node(0).memory_reclaimable == 2 * MIB
    assert topology.node(0).huge_pools[0].total == 4
    assert topology.distance(0, 0) == 10


def test_a_directory_that_is_not_a_host_is_an_error_of_one_line(tmp_path: Path) -> None:
    with pytest.raises(SchedhookError, match="meminfo") as caught:
        read_topology(tmp_path)
    assert "\n" not in str(caught.value)


def test_dirty_memory_is_not_reclaimable(tmp_path: Path) -> None:
    write_host(tmp_path, [FakeNode(number=0, cpus="0"), FakeNode(number=1, cpus="1")])
    write_file(
        tmp_path,
        "sys/devices/system/node/node0/meminfo",
        "Node 0 MemTotal: 900 kB\nNode 0 Active(file): 10 kB\nNode 0 Dirty: 40 kB\n",
    )
    assert read_topology(tmp_path).node(0).memory_reclaimable == 0


def test_a_node_that_is_just_going_offline_is_left_out(tmp_path: Path) -> None:
    write_host(tmp_path, [FakeNode(number=0, cpus="0"), FakeNode(number=1, cpus="1")])
    write_file(tmp_path, "sys/devices/system/node/online", "0\n")
    assert read_topology(tmp_path).online == {0}
