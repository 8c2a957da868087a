"""NUMA memory policies: from which nodes a thread, or an area of memory, gets its pages.

See set_mempolicy(2), mbind(2), and mpol_to_str() in the kernel's mm/mempolicy.c for the text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum, IntFlag
from typing import Self

from schedhook.values.sets import NodeSet
from schedhook.values.sizes import MIB

_LONGEST = 63
"""Characters that numa_maps has for a policy; it cuts a longer one off."""


class PolicyMode(IntEnum):
    """The kernel's numbers of the modes; linux/mempolicy.h."""

    DEFAULT = 0
    PREFERRED = 1
    BIND = 2
    INTERLEAVE = 3
    LOCAL = 4
    PREFERRED_MANY = 5
    WEIGHTED_INTERLEAVE = 6

    @property
    def text(self) -> str:
        """The mode as numa_maps shows it."""
        return _TEXTS[self]


_TEXTS = {
    PolicyMode.DEFAULT: "default",
    PolicyMode.PREFERRED: "prefer",
    PolicyMode.BIND: "bind",
    PolicyMode.INTERLEAVE: "interleave",
    PolicyMode.LOCAL: "local",
    PolicyMode.PREFERRED_MANY: "prefer (many)",
    PolicyMode.WEIGHTED_INTERLEAVE: "weighted interleave",
}
_REBOUND = (PolicyMode.BIND, PolicyMode.INTERLEAVE, PolicyMode.WEIGHTED_INTERLEAVE)
_MODES = {text: mode for mode, text in _TEXTS.items()}


class PolicyFlag(IntFlag):
    """The kernel's numbers of the flags that a mode can have; linux/mempolicy.h."""

    STATIC = 1 << 15
    """The nodes are meant literally: no change of cpuset.mems rebinds them."""
    RELATIVE = 1 << 14
    """The nodes are positions in the cpuset."""
    BALANCING = 1 << 13
    """NUMA balancing may move pages between the nodes."""


NO_FLAGS = PolicyFlag(0)

_FLAGS = {
    "static": PolicyFlag.STATIC,
    "relative": PolicyFlag.RELATIVE,
    "balancing": PolicyFlag.BALANCING,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A memory policy with the nodes that are in effect.

    Those of a relative policy are already mapped to its cpuset. `default` and `local` have none.
    """

    mode: PolicyMode = PolicyMode.DEFAULT
    nodes: NodeSet = field(default_factory=NodeSet)
    flags: PolicyFlag = NO_FLAGS

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse the text of numa_maps, such as `bind=static:0-1`. Raise ValueError.

        If the kernel cut the text off, the nodes are those that are certain. Older kernels, 6.1 for
        one, show a policy with the flag `balancing` as `default`.
        """
        head, _, nodes = text.partition(":")
        mode, _, flags = head.partition("=")
        if mode not in _MODES:
            raise ValueError(f"{text!r} is not a memory policy")
        found = NO_FLAGS
        for flag in filter(None, flags.split("|")):
            if flag not in _FLAGS:
                raise ValueError(f"{flag!r} in {text!r} is not a flag of a memory policy")
            found |= _FLAGS[flag]
        if len(text) >= _LONGEST:
            nodes = nodes.rpartition(",")[0]
        return cls(mode=_MODES[mode], nodes=NodeSet.parse(nodes), flags=found)

    def mapped(self, pairs: Mapping[int, int]) -> Self:
        """Return the policy with each old node of `pairs` replaced by the new one."""
        return replace(self, nodes=NodeSet(pairs.get(node, node) for node in self.nodes))

    def rebound(self, before: NodeSet, after: NodeSet) -> Self:
        """Return what the kernel makes of the policy when cpuset.mems changes from `before`.

        Nodes keep their rank, starting over if `after` has fewer. A static policy keeps the nodes
        that are allowed. If nothing would be left, all of `after` is. mpol_rebind_policy() in the
        kernel's mm/mempolicy.c; since Linux 5.14 it leaves preferred nodes alone.
        """
        if self.mode not in _REBOUND or before == after or not after:
            return self
        if PolicyFlag.STATIC in self.flags:
            nodes = self.nodes & after
        else:
            targets = list(after)
            rank = {node: targets[at % len(targets)] for at, node in enumerate(before)}
            nodes = NodeSet(rank.get(node, node) for node in self.nodes)
        return replace(self, nodes=nodes or after)

    def __str__(self) -> str:
        flags = "|".join(name for name, flag in _FLAGS.items() if flag in self.flags)
        nodes = f":{self.nodes}" if self.nodes else ""
        return self.mode.text + (f"={flags}" if flags else "") + nodes


def unwanted_changes(
    policies: Iterable[Policy], before: NodeSet, after: NodeSet, pairs: Mapping[int, int]
) -> set[str]:
    """Return what a change of cpuset.mems would do to policies that the node map does not say.

    Each is a text such as `bind:3 → bind:1`. A policy may become what the map says, or a part of
    that, or stay as it is.
    """
    changes = set()
    for policy in policies:
        result = policy.rebound(before, after)
        if result != policy and not result.nodes <= policy.mapped(pairs).nodes:
            changes.add(f"{policy} → {result}")
    return changes


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyCount:
    """How much some memory policies govern."""

    threads: int = 0
    """Threads whose own policy is one of them."""
    bytes: int = 0
    """Memory that they govern: all of an area with a policy of its own, whether it is in memory or
    not, and what is in memory of the areas that a thread's policy governs."""

    def __bool__(self) -> bool:
        return bool(self.threads or self.bytes)

    def __add__(self, other: PolicyCount) -> PolicyCount:
        return PolicyCount(threads=self.threads + other.threads, bytes=self.bytes + other.bytes)

    def __str__(self) -> str:
        parts = []
        if self.threads:
            parts.append("1 thread" if self.threads == 1 else f"{self.threads} threads")
        if self.bytes:
            parts.append(f"{self.bytes / MIB:.1f} MiB")
        return " and ".join(parts)

    def to_dict(self) -> dict[str, int]:
        """Return the object that `--json` prints."""
        return {"threads": self.threads, "bytes": self.bytes}
