"""What cgroups may still allocate, and on which nodes alone.

A cgroup that is fenced to some nodes and has not used up its memory limit will be killed if
another job's memory takes that room: its claim on these nodes counts as used.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from schedhook.values.sets import NodeSet


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """A cgroup: where it may allocate, and how much more."""

    path: str
    """Its directory in the hierarchy of cpusets."""
    nodes: NodeSet
    """The nodes with memory that its cpuset allows."""
    more: int | None = None
    """Bytes that its own limit allows beyond what it uses; None if it has no limit."""
    parts: tuple[Grant, ...] = ()
    """The cgroups below it."""


def claimed(grants: Iterable[Grant], nodes: NodeSet) -> int:
    """Return the bytes that the cgroups may still allocate and can only get on `nodes`."""
    return sum(_claimed(grant, nodes, None) for grant in grants)


def _claimed(grant: Grant, nodes: NodeSet, above: int | None) -> int:
    """Return the claim of one cgroup, of which `above` is the least that one above it may get."""
    most = min((each for each in (grant.more, above) if each is not None), default=None)
    if most is not None and grant.nodes <= nodes:
        return most
    below = sum(_claimed(part, nodes, most) for part in grant.parts)
    return below if most is None else min(below, most)


def fences(grants: Iterable[Grant]) -> Iterator[NodeSet]:
    """Yield the nodes of each cgroup, and of those below it."""
    for grant in grants:
        yield grant.nodes
        yield from fences(grant.parts)


def follow(
    grants: Iterable[Grant], paths: Collection[str], moves: Mapping[int, int]
) -> tuple[Grant, ...]:
    """Return the grants as they are when the cpusets at and below `paths` have moved as mapped."""
    return tuple(_follow(grant, paths, moves, below=False) for grant in grants)


def _follow(
    grant: Grant, paths: Collection[str], moves: Mapping[int, int], *, below: bool
) -> Grant:
    moved = below or grant.path in paths
    return replace(
        grant,
        nodes=NodeSet(moves.get(node, node) for node in grant.nodes) if moved else grant.nodes,
        parts=tuple(_follow(part, paths, moves, below=moved) for part in grant.parts),
    )
