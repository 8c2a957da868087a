"""Which node a task's memory goes to when the job's processors change."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TypeVar

from schedhook.control.cpu_map import successors
from schedhook.host.topology import Topology
from schedhook.values.sets import CpuSet

_Member = TypeVar("_Member")


def node_pairs(cpus: CpuSet, old: CpuSet, new: CpuSet, topology: Topology) -> dict[int, int]:
    """Return old node → new node for a task with `cpus`, of a job that goes from `old` to `new`.

    A node goes where most of the task's processors on it go; if several nodes get equally many, it
    goes to the lowest of them. A task that is not bound within the job counts with all of the
    job's processors.
    """
    successor = successors(old, new)
    votes: dict[int, Counter[int]] = {}
    for cpu in cpus & old or old:
        for source in topology.memory_nodes_of([cpu]):
            for destination in topology.memory_nodes_of([successor[cpu]]):
                votes.setdefault(source, Counter())[destination] += 1
    return {
        source: min(counted, key=lambda node: (-counted[node], node))
        for source, counted in sorted(votes.items())
    }


def group(
    moves: Iterable[tuple[_Member, Mapping[int, int]]],
) -> list[tuple[dict[int, int], list[_Member]]]:
    """Group the members whose pairs of nodes fit into one map.

    Memory that several members of a group share is then counted once.
    """
    groups: list[tuple[dict[int, int], list[_Member]]] = []
    for member, pairs in moves:
        for known, members in groups:
            if all(known.get(old, new) == new for old, new in pairs.items()):
                known.update(pairs)
                members.append(member)
                break
        else:
            groups.append((dict(pairs), [member]))
    return groups
