"""Read and set memory policies in a stopped thread: get_mempolicy(2), mbind(2) and the like."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace

from schedhook.control.remote import Visit
from schedhook.values.policy import PolicyFlag
from schedhook.values.sets import NodeSet

_BITS = 1024
"""Nodes in a mask; the kernel has no more."""
_MODE_SIZE = 8
_OF_ADDRESS = 2
"""MPOL_F_ADDR: the area's own policy, MPOL_DEFAULT if it has none; <linux/mempolicy.h>."""


@dataclass(frozen=True, slots=True)
class KernelPolicy:
    """A memory policy as the system calls take it."""

    mode: int
    """MPOL_BIND and so on, with the flags."""
    nodes: NodeSet
    """As the process set them: with MPOL_F_RELATIVE_NODES, ranks among the nodes it may use."""

    def follow(self, moves: Mapping[int, int], allowed: NodeSet) -> KernelPolicy:
        """Return the policy with old nodes replaced by new ones; itself if it names no old node.

        `allowed` are the nodes that the thread's cpuset allows. A relative policy of which a new
        node is not among them is returned as it is.
        """
        if not self.mode & PolicyFlag.RELATIVE:
            return self._on(NodeSet(moves.get(node, node) for node in self.nodes))
        ranked = list(allowed)
        if not ranked:
            return self
        # The kernel counts on from the first allowed node after the last; set_mempolicy(2).
        named = NodeSet(ranked[rank % len(ranked)] for rank in self.nodes)
        new = NodeSet(moves.get(node, node) for node in named)
        if new == named or new - allowed:
            return self
        return self._on(NodeSet(ranked.index(node) for node in new))

    def _on(self, nodes: NodeSet) -> KernelPolicy:
        return self if nodes == self.nodes else replace(self, nodes=nodes)


@dataclass(frozen=True, slots=True)
class Range:
    """Addresses of a process."""

    start: int
    size: int


def get_policy(visit: Visit, area: Range | None = None) -> KernelPolicy | None:
    """Return the thread's policy, or the area's own. None if the area is not mapped any more."""
    place = (area.start, _OF_ADDRESS) if area else (0, 0)
    at = visit.arguments
    if visit.call("get_mempolicy", at, at + _MODE_SIZE, _BITS + 1, *place) < 0:
        return None
    data = visit.read(_MODE_SIZE + _BITS // 8)
    mode = int.from_bytes(data[:4], sys.byteorder)
    return KernelPolicy(mode, NodeSet.from_mask(data[_MODE_SIZE:]))


def set_policy(visit: Visit, policy: KernelPolicy, area: Range | None = None) -> int:
    """Set the thread's policy, or the area's. Return 0 or an errno."""
    visit.write(policy.nodes.mask(_BITS))
    mask = (policy.mode, visit.arguments, _BITS + 1)
    if area is None:
        return -visit.call("set_mempolicy", *mask)
    return -visit.call("mbind", area.start, area.size, *mask, 0)
