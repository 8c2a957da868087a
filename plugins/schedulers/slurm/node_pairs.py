"""From a job's old place to a new one, node by node."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TypeVar

from schedhook.control.cpu_map import successors
from schedhook.host.topology import Topology
from schedhook.values.sets import CpuSet

_Member = TypeVar("_Member")


def node_pairs(cpus: CpuSet, old: CpuSet, new: CpuSet, topology: Topology) -> dict[int, int]:
    """Old node → new node for a task that uses `cpus` of a job that goes from `old` to `new`.

    A node goes where most of the task's processors on it go, the lowest such node where several
    are equal. A task that is not bound within the job counts with all of the job's processors.
    """
    then = successors(old, new)
    votes: dict[int, Counter[int]] = {}
    for cpu in cpus & old or old:
        for source in topology.memory_nodes_of([cpu]):
            for destination in topology.memory_nodes_of([then[cpu]]):
                votes.setdefault(source, Counter())[destination] += 1
    return {
        source: min(counted, key=lambda node: (-counted[node], node))
        for source, counted in sorted(votes.items())
    }


def group(
    moves: Iterable[tuple[_Member, Mapping[int, int]]],
) -> list[tuple[dict[int, int], list[_Member]]]:
    """Put together what can go by one map, so that memory which several share is counted once."""
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
