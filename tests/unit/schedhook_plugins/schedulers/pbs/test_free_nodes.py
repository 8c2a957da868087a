"""Choosing free CPUs for a job that shares its own."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from schedhook.host.topology import Node, Topology
from schedhook.values.sets import CpuSet
from schedhook_plugins.schedulers.pbs.free_nodes import find_place

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


CPUS = st.sets(st.integers(0, 9), min_size=1, max_size=4).map(CpuSet)
SIZES = st.dictionaries(st.integers(0, 4), st.integers(0, 8 * MIB), min_size=5, max_size=5)


@given(CPUS, st.sets(st.integers(0, 9)), SIZES, SIZES)
def test_a_place_is_free_apart_and_large_enough(
    cpus: CpuSet, taken: set[int], needed: dict[int, int], free: dict[int, int]
) -> None:
    here = topology(free)
    place = find_place(cpus, needed, taken, here.cpus, here)
    if place is None:
        return
    new = CpuSet(place.cpus.values())
    assert set(place.cpus) == cpus
    assert len(new) == len(cpus)
    assert not new & taken
    assert not new & cpus
    assert len(set(place.nodes.values())) == len(place.nodes)
    assert not set(place.nodes) & set(place.nodes.values())
    for old, to in place.nodes.items():
        assert here.room(to) >= needed.get(old, 0)
        assert {place.cpus[cpu] for cpu in cpus & here.cpus_of([old])} <= here.cpus_of([to])


def test_the_nearest_place_is_taken() -> None:
    here = topology(dict.fromkeys(range(4), MIB), {(0, 1): 24, (0, 2): 12, (0, 3): 20})
    place = find_place(CpuSet({0}), {0: 1}, [4], here.cpus, here)
    assert place is not None
    assert place.nodes == {0: 2}
    assert place.cpus == {0: 5}
