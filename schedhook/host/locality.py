"""Which memory is local to the processors that use it, and which is off-node."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from schedhook.host.topology import Topology
from schedhook.values.model import Placement
from schedhook.values.policy import Policy
from schedhook.values.sets import NodeSet


def local_nodes(topology: Topology, placement: Placement) -> NodeSet:
    """Return the nodes on which memory is local to these processors.

    Besides the placement's own nodes these are the nodes without processors (HBM, CXL) to which no
    other processors are nearer.
    """
    own = topology.nodes_of(placement.cpus) | placement.nodes
    near = (
        node
        for node in topology.memory_only_nodes
        if topology.nearest(node, topology.cpu_nodes) & own
    )
    return placement.nodes | near


def off_nodes(topology: Topology, placement: Placement, policies: Iterable[str] = ()) -> NodeSet:
    """Return the nodes on which memory of a process with this placement is off-node.

    They are those that are not local, except nodes without processors on which memory lies on
    purpose: memory of GPUs; nodes that one of the process's `policies` names (as numa_maps shows
    them); and all of them if the kernel demotes cold memory. None if the placement has no nodes.
    """
    if not placement.nodes:
        return NodeSet()
    bare = topology.memory_only_nodes
    on_purpose = bare if topology.demotes else topology.gpu_nodes | (bare & _named(policies))
    return topology.memory_nodes - local_nodes(topology, placement) - on_purpose


def _named(policies: Iterable[str]) -> NodeSet:
    """Return the nodes that the policies name."""
    nodes = NodeSet()
    for text in set(policies):
        with suppress(ValueError):  # of a newer kernel
            nodes = nodes | Policy.parse(text).nodes
    return nodes
