"""Choosing free CPUs for a job that shares its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from hypothesis import given
from hypothesis import strategies as st

from schedhook.host.topology import Topology
from schedhook.testing.hosts import FakeNode
from schedhook.values.sets import CpuSet, NodeSet
from schedhook_plugins.schedulers.pbs.free_nodes import Occupancy, Place, find_place, free_cpus
from tests.unit.topologies import GIB, KINDS, Kind, hosts, make_topology, may_be_chosen


@given(hosts(), st.data())
def test_a_place_is_free_apart_and_large_enough(host: list[FakeNode], data: st.DataObject) -> None:
    here, numbers = make_topology(host), [node.number for node in host]
    some = st.sets(st.sampled_from([*here.cpus] or [0]), max_size=6)
    cpus = CpuSet(data.draw(some)) & here.cpus
    taken = data.draw(some)
    shared = cpus & taken
    sizes = st.integers(0, 80 * GIB)
    needed = {node: data.draw(sizes) for node in data.draw(st.sets(st.sampled_from(numbers)))}
    place = find(cpus, taken, needed, here)
    if place is None:
        return
    new = CpuSet(place.cpus.values())
    assert shared <= set(place.cpus) <= cpus
    assert len(new) == len(place.cpus)
    assert not new & taken
    assert not new & cpus
    assert len(set(place.nodes.values())) == len(place.nodes)
    assert not set(place.nodes) & set(place.nodes.values())
    assert set(place.nodes.values()) <= may_be_chosen(host)
    for old, to in place.nodes.items():
        assert here.room(to) >= needed.get(old, 0)
        assert {place.cpus[cpu] for cpu in cpus & here.cpus_of([old])} <= here.cpus_of([to])
    for cpu, to in place.cpus.items():
        if not here.nodes_of([cpu]) & place.nodes:
            assert here.nodes_of([cpu]) <= here.nodes_of([to])


def find(
    cpus: CpuSet,
    taken: Iterable[int],
    needed: Mapping[int, int],
    here: Topology,
    cores: Sequence[CpuSet] = (),
) -> Place | None:
    """Find a place for a job whose CPUs that are `taken` are shared."""
    cores = cores or [CpuSet({cpu}) for cpu in here.cpus]
    free = free_cpus(here.cpus, [*cpus, *taken], cores)
    shared = cpus & taken
    job = Occupancy(cpus=cpus, shared=shared, free=free, cores=cores)
    return find_place(job, lambda: needed, here)


def test_the_nearest_place_is_taken() -> None:
    here = make_topology(KINDS["eight nodes"].nodes())
    place = find(CpuSet({0}), here.cpus_of([0, 1]), {0: 1}, here)
    assert place is not None
    assert place.nodes == {0: 2}
    assert place.cpus == {0: 8}


def test_processors_on_two_nodes_count_once() -> None:
    """With numa=fake both nodes of a job share its processors, and both new ones share theirs."""
    fake = Kind({node: f"{node // 2 * 4}-{node // 2 * 4 + 3}" for node in range(6)}, {})
    here = make_topology(fake.nodes())
    place = find(CpuSet({0, 1}), [0, 1, 2, 3, 4, 5, 6], {0: GIB, 1: GIB}, here)
    assert place is not None
    assert place.nodes == {0: 4, 1: 5}
    assert place.cpus == {0: 8, 1: 9}


def test_processors_of_its_own_nodes_come_first() -> None:
    """They need no move of memory; only those that are shared change."""
    here = make_topology(KINDS["eight nodes"].nodes())
    mine = here.cpus_of([0])
    place = find(CpuSet({0, 1}), [1], {0: 90 * GIB}, here)
    assert place is not None
    assert place.nodes == {}
    assert place.cpus == {1: min(mine - [0, 1])}


def test_threads_of_one_core_stay_together() -> None:
    """A core of which another job has a thread is not free: PBS may grant first threads only."""
    here = make_topology(KINDS["eight nodes"].nodes())
    first, second, third, fourth, *_ = here.cpus_of([0])
    cores = [CpuSet({first, third}), CpuSet({second, fourth})]
    assert find(CpuSet({first}), [first, second], {}, here, cores) is None
    cores += [CpuSet(sorted(here.cpus_of([2]))[:2])]
    place = find(CpuSet({first, third}), [first, second], {}, here, cores)
    assert place is not None
    assert set(place.cpus) == {first, third}
    assert CpuSet(place.cpus.values()) == cores[-1]


def test_memory_of_a_node_without_processors_stays() -> None:
    here = make_topology(KINDS["cxl expander"].nodes())
    taken = here.cpus_of([0])
    place = find(CpuSet({0}), taken, {0: GIB, 2: GIB}, here)
    assert place is not None
    assert place.nodes == {0: 1}
    assert NodeSet(place.nodes.values()) <= here.cpu_nodes
