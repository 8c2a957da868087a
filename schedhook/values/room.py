"""Room on nodes: what may still arrive there.

It is what the kernel can give, less what is kept in reserve, less what cgroups may still allocate
and can get nowhere else; see schedhook.values.grants.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from schedhook.values.grants import Grant, claimed, fences
from schedhook.values.sets import NodeSet


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """The room on one node, or on several to which a cgroup is fenced. Sizes are bytes."""

    nodes: NodeSet
    size: int
    """What the kernel can give on them; see Node.room."""
    claimed: int = 0
    """What cgroups may still allocate, and on these nodes alone."""
    reserve: int = 0
    """What must stay free."""

    @property
    def balance(self) -> int:
        """Return the bytes that may arrive; negative if so many should not be there."""
        return self.size - self.claimed - self.reserve

    @property
    def spare(self) -> int:
        """Return the bytes that may arrive; 0 if there is no room."""
        return max(self.balance, 0)

    def is_entered(self, moves: Iterable[tuple[int, int]]) -> bool:
        """Return whether one of these moves, (old node, new node), brings memory in."""
        return any(new in self.nodes and old not in self.nodes for old, new in moves)


def find_rooms(
    sizes: Mapping[int, int], grants: Collection[Grant], reserve: int
) -> tuple[Room, ...]:
    """Return the rooms of a host, whose nodes can give `sizes` bytes.

    They are each node, and the nodes of each fence around several; memory that moves within a fence
    takes none of its room.
    """
    fenced = {nodes & sizes for nodes in fences(grants)}
    several = (nodes for nodes in fenced if 1 < len(nodes) < len(sizes))
    return tuple(
        Room(
            nodes=nodes,
            size=sum(sizes[node] for node in nodes),
            claimed=claimed(grants, nodes),
            reserve=reserve,
        )
        for nodes in (*(NodeSet({node}) for node in sorted(sizes)), *sorted(several, key=str))
    )
