"""Free CPUs that a job could have instead of those that it shares."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
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
    """Old CPU → new one; CPUs that the job keeps are not in it."""
    nodes: Mapping[int, int]
    """Old node → new one; empty if the new CPUs are on the nodes of the old ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Occupancy:
    """The CPUs of a job, and those that it could have instead."""

    cpus: CpuSet
    """Those of the job."""
    shared: CpuSet
    """Those of them that other jobs run on."""
    free: CpuSet
    cores: Sequence[CpuSet]
    """The host's CPUs in groups, each the hardware threads of one core."""


def free_cpus(allowed: CpuSet, used: Iterable[int], cores: Sequence[CpuSet]) -> CpuSet:
    """Return those of the CPUs `allowed` of whose cores no thread is among `used`.

    PBS may be set up to grant one thread of each core only, so the other one is not free.
    """
    taken = frozenset(used)
    return CpuSet(cpu for core in cores if not core & taken for cpu in core & allowed)


def find_place(
    job: Occupancy, needed: Callable[[], Mapping[int, int]], topology: Topology, reserve: int = 0
) -> Place | None:
    """Find free CPUs in place of those that are shared; None if a node finds no others.

    CPUs of the same node come first: no memory has to move, and PBS counts CPUs by vnode. Else all
    of the job's CPUs of that node, and its memory there, go to another node with as many free CPUs
    and with room for that memory and `reserve` bytes more. The nearest such node is taken; of nodes
    that are equally near, the lowest. `needed`, which is only called then, returns bytes by node.
    """
    mine = topology.nodes_of(job.cpus)
    new_cpus: dict[int, int] = {}
    new_nodes: dict[int, int] = {}
    for old in mine:
        here = topology.cpus_of([old])
        if not job.shared & here:
            continue
        pairs = _pair(job, job.shared & here, here, new_cpus)
        if pairs is None:
            held = needed()
            occupied = mine | NodeSet(node for node, size in held.items() if size)
            fitting = {
                node: found
                for node in topology.memory_nodes - occupied - NodeSet(new_nodes.values())
                if (found := _pair(job, job.cpus & here, topology.cpus_of([node]), new_cpus))
            }
            new = topology.find_room(old, held.get(old, 0) + reserve, NodeSet(fitting))
            if new is None:
                return None
            new_nodes[old] = new
            pairs = fitting[new]
        new_cpus |= pairs
    return Place(cpus=new_cpus, nodes=new_nodes)


def _pair(
    job: Occupancy, cpus: CpuSet, there: CpuSet, before: Mapping[int, int]
) -> dict[int, int] | None:
    """Return a free CPU of `there` for each of `cpus`, None if there are too few.

    The threads of one core get those of one core. `before` are the pairs of other nodes. With
    `numa=fake` a CPU is on several nodes: then it must get the same one again, which no other may
    get.
    """
    pairs = {cpu: before[cpu] for cpu in cpus if cpu in before}
    if not there.issuperset(pairs.values()):
        return None
    left = [core & there & job.free - before.values() for core in job.cores]
    for core in job.cores:
        threads = (core & cpus) - pairs
        new = next((each for each in left if len(each) >= len(threads)), None)
        if threads and new is None:
            return None
        if threads and new is not None:
            left.remove(new)
            pairs |= dict(zip(threads, new, strict=False))
    return pairs
