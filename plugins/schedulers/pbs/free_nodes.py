"""Free CPUs that a job could have instead of those that it shares."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial

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
        mine = list(cpus & topology.cpus_of([old]))
        fitting = [
            node
            for node in topology.memory_nodes - old_nodes - NodeSet(new_nodes.values())
            if len(free & topology.cpus_of([node])) >= max(len(mine), 1)
            and topology.room(node) >= needed.get(old, 0) + reserve
        ]
        if not fitting:
            return None
        new = min(fitting, key=partial(_nearness, topology, old))
        new_nodes[old] = new
        new_cpus.update(zip(mine, free & topology.cpus_of([new]), strict=False))
    return Place(cpus=new_cpus, nodes=new_nodes)


def _nearness(topology: Topology, old: int, node: int) -> tuple[int, int]:
    return topology.distance(old, node), node
