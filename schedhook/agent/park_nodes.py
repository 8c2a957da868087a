"""Choosing the nodes on which a suspended job's memory is parked, if none are configured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from schedhook.agent.job import Job, make_plan
from schedhook.host.topology import Topology, read_topology
from schedhook.roles.request import Request
from schedhook.roles.scheduler import Task
from schedhook.values.fit import claimed_by_node
from schedhook.values.model import NodeMap, Plan
from schedhook.values.sets import CpuSet, NodeSet
from schedhook.values.sizes import MIB

_RESERVE = 64 * MIB
"""Bytes that stay free on a node that is chosen here; the pipeline has its own bound."""
_LEAST_SHARE = 0.01


def choose_nodes(job: Job, task: Task, home: NodeSet, refused: NodeSet) -> dict[int, int] | None:
    """Return for each node of home that holds memory of the task another one with room for it.

    None if there are too few; see `match_nodes`. A few pages, such as every process has on some
    other node, do not count.
    """
    topology = read_topology(job.root)
    plan = _plan_ring(job, task, topology)
    held = plan.bytes_by_source if plan else {}
    least = max(MIB, int(_LEAST_SHARE * sum(held.values())))
    needed = {node: size for node, size in held.items() if node in home and size >= least}
    candidates = topology.memory_nodes - home - refused
    topology = replace(topology, claimed=claimed_by_node(plan) if plan else {})
    return match_nodes(needed, _occupied(job, topology), candidates, topology, _RESERVE)


def choose_by_room(job: Job, task: Task, sources: NodeSet, free: NodeSet) -> dict[int, int]:
    """Return for each of the nodes `sources` one of `free`, which are at least as many.

    The node with the most memory of the task gets the one with the most room, and so on; of equals
    the lowest.
    """
    topology = read_topology(job.root)
    room = {node: its.room for node, its in topology.nodes.items()}
    plan = _plan_ring(job, task, topology) if len(sources) > 1 else None
    held = plan.bytes_by_source if plan else {}
    largest = sorted(sources, key=lambda node: (-held.get(node, 0), node))
    roomy = sorted(free, key=lambda node: (-room.get(node, 0), node))
    return dict(sorted(zip(largest, roomy, strict=False)))


def _plan_ring(job: Job, task: Task, topology: Topology) -> Plan | None:
    """Return a plan that tells what the task has on each node, and what room each node has."""
    nodes = list(topology.memory_nodes)
    ring = {
        old: new for old, new in zip(nodes, [*nodes[1:], *nodes[:1]], strict=True) if old != new
    }
    return make_plan(job, [task], Request(node_map=NodeMap(pairs=ring))) if ring else None


def _occupied(job: Job, topology: Topology) -> NodeSet:
    """Return the nodes whose CPUs other jobs may use."""
    others = (other for other in job.adapter.jobs() if other != job.name)
    tasks = (task for other in others for task in job.adapter.tasks(other))
    return topology.nodes_of(CpuSet(cpu for task in tasks for cpu in task.placement.cpus))


def match_nodes(
    needed: Mapping[int, int],
    occupied: NodeSet,
    candidates: NodeSet,
    topology: Topology,
    reserve: int,
) -> dict[int, int] | None:
    """Return for each node in `needed` (bytes by node) a candidate with room, no two the same.

    Nodes that no job occupies are preferred, of those the nearest. Nodes without CPUs are never
    chosen: their memory is slower (CXL), scarce (HBM) or a GPU's. None if there are too few.
    """
    chosen: dict[int, int] = {}
    for old, size in sorted((node, size) for node, size in needed.items() if size):
        left = candidates - NodeSet(needed) - NodeSet(chosen.values())
        new = topology.find_room(old, size + reserve, left, occupied)
        if new is None:
            return None
        chosen[old] = new
    return chosen
