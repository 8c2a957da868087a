"""Choosing free CPUs for a job that shares its own."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from schedhook.testing.hosts import FakeNode
from schedhook.values.sets import CpuSet, NodeSet
from schedhook_plugins.schedulers.pbs.free_nodes import find_place
from tests.unit.topologies import GIB, KINDS, Kind, hosts, make_topology, may_be_chosen


@given(hosts(), st.data())
def test_a_place_is_free_apart_and_large_enough(host: list[FakeNode], data: st.DataObject) -> None:
    here, numbers = make_topology(host), [node.number for node in host]
    some = st.sets(st.sampled_from([*here.cpus] or [0]), max_size=6)
    cpus = CpuSet(data.draw(some))
    taken = data.draw(some)
    sizes = st.integers(0, 80 * GIB)
    needed = {node: data.draw(sizes) for node in data.draw(st.sets(st.sampled_from(numbers)))}
    place = find_place(cpus, needed, taken, here.cpus, here)
    if place is None:
        return
    new = CpuSet(place.cpus.values())
    assert set(place.cpus) == cpus & here.cpus
    assert len(new) == len(place.cpus)
    assert not new & taken
    assert not new & cpus
    assert len(set(place.nodes.values())) == len(place.nodes)
    assert not set(place.nodes) & set(place.nodes.values())
    assert set(place.nodes.values()) <= may_be_chosen(host)
    for old, to in place.nodes.items():
        assert here.room(to) >= needed.get(old, 0)
        assert {place.cpus[cpu] for cpu in cpus & here.cpus_of([old])} <= here.cpus_of([to])


def test_the_nearest_place_is_taken() -> None:
    here = make_topology(KINDS["eight nodes"].nodes())
    place = find_place(CpuSet({0}), {0: 1}, here.cpus_of([1]), here.cpus, here)
    assert place is not None
    assert place.nodes == {0: 2}
    assert place.cpus == {0: 8}


def test_processors_on_two_nodes_count_once() -> None:
    """With numa=fake both nodes of a job share its processors, and both new ones share theirs."""
    fake = Kind({node: f"{node // 2 * 4}-{node // 2 * 4 + 3}" for node in range(6)}, {})
    here = make_topology(fake.nodes())
    place = find_place(CpuSet({0, 1}), {0: GIB, 1: GIB}, [4, 5, 6], here.cpus, here)
    assert place is not None
    assert place.nodes == {0: 4, 1: 5}
    assert place.cpus == {0: 8, 1: 9}


def test_memory_of_a_node_without_processors_needs_a_place_with_some() -> None:
    here = make_topology(KINDS["cxl expander"].nodes())
    assert find_place(CpuSet({0}), {2: GIB}, [], here.cpus, here) is None
    place = find_place(CpuSet({0}), {0: GIB}, [], here.cpus, here)
    assert place is not None
    assert place.nodes == {0: 1}
    assert NodeSet(place.nodes.values()) <= here.cpu_nodes
