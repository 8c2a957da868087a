"""Free CPUs that a job could have instead of those that it shares."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from schedhook.host.topology import Topology
from schedhook.values.sets import CpuSet, NodeSet


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbour:
    """Another job on this host."""

    job: str
    cpus: CpuSet
    running: bool
    """Whether one of its processes could run: not all are stopped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Free CPUs for a job, node by node."""

    cpus: Mapping[int, int]
    """Old CPU → new one."""
    nodes: Mapping[int, int]
    """Old node → new one."""


def find_place(
    cpus: CpuSet,
    needed: Mapping[int, int],
    taken: Iterable[int],
    allowed: CpuSet,
    topology: Topology,
    reserve: int = 0,
) -> Place | None:
    """Find free CPUs in place of `cpus`; None if a node finds no other one.

    Each of their nodes gets another one, with as many free CPUs and with room for what the job has
    there and `reserve` bytes more. `needed` is bytes per node, `taken` what other jobs have,
    `allowed` what this one may have. The nearest node is taken; of nodes that are equally near, the
    lowest.
    """
    free = allowed - CpuSet(taken) - cpus
    old_nodes = topology.nodes_of(cpus) | NodeSet(node for node, size in needed.items() if size)
    new_cpus: dict[int, int] = {}
    new_nodes: dict[int, int] = {}
    for old in old_nodes:
        mine = cpus & topology.cpus_of([old])
        fitting = {
            node: pairs
            for node in topology.memory_nodes - old_nodes - NodeSet(new_nodes.values())
            if (pairs := _pair(mine, free & topology.cpus_of([node]), new_cpus)) is not None
        }
        new = topology.find_room(old, needed.get(old, 0) + reserve, NodeSet(fitting))
        if new is None:
            return None
        new_nodes[old] = new
        new_cpus |= fitting[new]
    return Place(cpus=new_cpus, nodes=new_nodes)


def _pair(mine: CpuSet, free: CpuSet, before: Mapping[int, int]) -> dict[int, int] | None:
    """Return a CPU of one node's free ones for each of `mine`; None if it has too few.

    `before` are the pairs of other nodes. With `numa=fake` a CPU is on several nodes: then it must
    get the same one again, which no other may get.
    """
    same = {cpu: before[cpu] for cpu in mine if cpu in before}
    rest, left = mine - same, free - before.values()
    if not free.issuperset(same.values()) or len(left) < len(rest) or not (same or left):
        return None
    return same | dict(zip(rest, left, strict=False))
