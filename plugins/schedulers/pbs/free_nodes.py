"""Processors that jobs share, and free ones that one of them could have instead."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from schedhook.host.cgroups import configured_cpus
from schedhook.host.processes import read_status
from schedhook.host.topology import Topology
from schedhook.values.errors import ProcessGoneError
from schedhook.values.sets import CpuSet, NodeSet

if TYPE_CHECKING:
    from schedhook_plugins.schedulers.pbs.adapter import PbsScheduler


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbour:
    """Another job on this host."""

    job: str
    cpus: CpuSet
    running: bool
    """Not stopped: some process of it could run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Free processors for a job, node by node."""

    cpus: Mapping[int, int]
    """Old processor → new one."""
    nodes: Mapping[int, int]
    """Old node → new one."""


def neighbours(scheduler: PbsScheduler, job: str) -> list[Neighbour]:
    """The other jobs here whose cpuset names processors of its own."""
    found = []
    for other in scheduler.jobs():
        cpuset = scheduler.cpuset(other) if other != job else None
        cpus = configured_cpus(cpuset) if cpuset else CpuSet()
        if cpus:
            running = any(_runs(scheduler, pid) for pid in scheduler.pids(other))
            found.append(Neighbour(job=other, cpus=cpus, running=running))
    return found


def _runs(scheduler: PbsScheduler, pid: int) -> bool:
    try:
        return read_status(pid, scheduler.root).state not in "TtZX"
    except ProcessGoneError:
        return False


def find_place(
    cpus: CpuSet,
    needed: Mapping[int, int],
    taken: Iterable[int],
    allowed: CpuSet,
    topology: Topology,
    reserve: int = 0,
) -> Place | None:
    """Free processors in place of `cpus`: for each of their nodes another one, with as many free
    processors and, with `reserve` to spare, room for what the job has there. None where a node
    finds no other.

    `needed` is bytes per node, `taken` what other jobs have, `allowed` what this one may have. The
    nearest node is taken; of nodes that are equally near, the lowest.
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
            and topology.free(node) >= needed.get(old, 0) + reserve
        ]
        if not fitting:
            return None
        new = min(fitting, key=partial(_nearness, topology, old))
        new_nodes[old] = new
        new_cpus.update(zip(mine, free & topology.cpus_of([new]), strict=False))
    return Place(cpus=new_cpus, nodes=new_nodes)


def park_nodes(
    occupied: NodeSet,
    needed: Mapping[int, int],
    candidates: NodeSet,
    topology: Topology,
    reserve: int,
) -> dict[int, int] | None:
    """For each node that holds memory another one with room, no two the same, so that what was
    apart stays apart; None where there are too few. Nodes that no job occupies come first, and of
    those the ones without processors (CXL, say), then the nearest."""
    chosen: dict[int, int] = {}
    for old in sorted(node for node, size in needed.items() if size):
        fitting = [
            node
            for node in candidates - NodeSet(needed) - NodeSet(chosen.values())
            if topology.free(node) >= needed[old] + reserve
        ]
        if not fitting:
            return None
        chosen[old] = min(
            fitting, key=partial(_fitness_to_park, topology, old, frozenset(occupied))
        )
    return chosen


def _nearness(topology: Topology, old: int, node: int) -> tuple[int, int]:
    return topology.distance(old, node), node


def _fitness_to_park(
    topology: Topology, old: int, occupied: frozenset[int], node: int
) -> tuple[bool, bool, int, int]:
    return node in occupied, bool(topology.node(node).cpus), *_nearness(topology, old, node)
