"""Old processors lead to new ones, and old nodes to new nodes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from schedhook.control.cpu_map import relative, successors
from schedhook.host.topology import Node, Topology
from schedhook.testing.hosts import FakeNode
from schedhook.values.sets import CpuSet
from schedhook_plugins.schedulers.slurm.node_pairs import node_pairs
from tests.unit.topologies import KINDS, hosts, make_topology, may_be_chosen

CPUS = st.frozensets(st.integers(0, 31), min_size=1, max_size=12).map(CpuSet)


def topology(*cpus: str) -> Topology:
    return Topology(
        nodes={
            number: Node(number=number, cpus=CpuSet.parse(text), memory_total=1 << 30)
            for number, text in enumerate(cpus)
        }
    )


FOUR = topology("0-3", "4-7", "8-11", "12-15")


def cpus(text: str) -> CpuSet:
    return CpuSet.parse(text)


# -- processors ----------------------------------------------------------------------------------


def test_each_old_processor_has_a_successor() -> None:
    assert successors(cpus("0-1"), cpus("2-3")) == {0: 2, 1: 3}
    assert successors(cpus("0-3"), cpus("8-9")) == {0: 8, 1: 9, 2: 8, 3: 9}
    assert successors(cpus("0-1"), cpus("4-7")) == {0: 4, 1: 5}
    assert successors(cpus("0-1"), CpuSet()) == {}


def test_some_processors_keep_their_place_and_others_become_all() -> None:
    old, new = cpus("0-3"), cpus("8-11")
    assert relative(cpus("1"), old, new) == cpus("9")
    assert relative(cpus("0,3"), old, new) == cpus("8,11")
    assert relative(old, old, new) == new
    assert relative(cpus("0-7"), old, new) == new
    assert relative(cpus("20"), old, new) == new
    assert relative(CpuSet(), old, new) == new
    assert relative(cpus("1,20"), old, new) == cpus("9")


@given(CPUS, CPUS, st.data())
def test_relative_stays_inside_the_new_set_and_can_be_reversed(
    old: CpuSet, new: CpuSet, data: st.DataObject
) -> None:
    some = CpuSet(data.draw(st.frozensets(st.sampled_from(list(old)), min_size=1)))
    moved = relative(some, old, new)
    assert moved
    assert moved <= new
    if len(old) == len(new):
        assert len(moved) == len(some)
        assert relative(moved, new, old) == some


# -- nodes ---------------------------------------------------------------------------------------


def test_nodes_follow_the_processors() -> None:
    old, new = cpus("0-7"), cpus("8-15")
    assert node_pairs(old, old, new, FOUR) == {0: 2, 1: 3}
    assert node_pairs(cpus("5"), old, new, FOUR) == {1: 3}
    assert node_pairs(cpus("30"), old, new, FOUR) == {0: 2, 1: 3}


@given(hosts(), st.data())
def test_memory_follows_to_nodes_with_processors(host: list[FakeNode], data: st.DataObject) -> None:
    here = make_topology(host)
    some = st.frozensets(st.sampled_from([*here.cpus] or [0]), min_size=1, max_size=6).map(CpuSet)
    old, new = data.draw(some), data.draw(some)
    pairs = node_pairs(old, old, new, here)
    assert set(pairs.values()) <= may_be_chosen(host)
    assert set(pairs.values()) <= here.memory_nodes_of(new)


def test_nodes_that_share_processors_go_to_one_each() -> None:
    fake = make_topology(KINDS["numa=fake"].nodes())
    assert node_pairs(cpus("0-3"), cpus("0-3"), cpus("4-7"), fake) == {0: 2, 1: 3}


def test_nodes_that_are_equally_near_to_one_without_memory_all_lead_away() -> None:
    equals = make_topology(KINDS["memoryless between equals"].nodes())
    assert node_pairs(cpus("4-7"), cpus("4-7"), cpus("8-11"), equals) == {0: 2, 2: 2}


def test_nodes_may_be_numbered_in_another_order_than_processors() -> None:
    """Pairing the sorted nodes would pair 0 with 2 here."""
    crossed = topology("4-7", "0-3", "8-11", "12-15")
    assert node_pairs(cpus("0-7"), cpus("0-7"), cpus("8-15"), crossed) == {0: 3, 1: 2}


def test_a_node_goes_where_most_of_its_processors_go() -> None:
    assert node_pairs(cpus("0-2"), cpus("0-2"), cpus("7,8,9"), FOUR) == {0: 2}
    assert node_pairs(cpus("0-1"), cpus("0-1"), cpus("7,8"), FOUR) == {0: 1}
