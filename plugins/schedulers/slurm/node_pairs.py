"""Which node a task's memory goes to when the job's processors change."""

from __future__ import annotations

from collections import Counter

from schedhook.control.cpu_map import successors
from schedhook.host.topology import Topology
from schedhook.values.nodemap import kernel_rule
from schedhook.values.sets import CpuSet, NodeSet


def node_pairs(cpus: CpuSet, old: CpuSet, new: CpuSet, topology: Topology) -> dict[int, int]:
    """Return old node → new node for a task with `cpus`, of a job that goes from `old` to `new`.

    A node goes where most of the task's processors on it go; if several nodes get equally many, it
    goes to the lowest of them. A task that is not bound within the job counts with all of the
    job's processors.
    """
    successor = successors(old, new)
    votes: dict[int, Counter[int]] = {}
    for cpu in cpus & old or old:
        sources = topology.memory_nodes_of([cpu])
        destinations = topology.memory_nodes_of([successor[cpu]])
        for source, destination in _paired(sources, destinations).items():
            votes.setdefault(source, Counter())[destination] += 1
    return {
        source: min(counted, key=lambda node: (-counted[node], node))
        for source, counted in sorted(votes.items())
    }


def _paired(sources: NodeSet, destinations: NodeSet) -> dict[int, int]:
    """Return the new node of each node of one processor.

    There are several if the processor is on several (`numa=fake`), or if several are nearest to its
    own node, which has no memory. Nodes that are in both sets keep their memory.
    """
    if not destinations:
        return {}
    staying = sources & destinations
    moving, free = sources - staying, destinations - staying or destinations
    pairs = kernel_rule(moving, free) if moving else {}
    return pairs | {node: node for node in staying}
