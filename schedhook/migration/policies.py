"""Memory policies of the processes of a job, and what of them a node map leaves behind.

Moved pages do not take a policy along: what the job allocates next comes from the nodes that the
policy names; see set_mempolicy(2) and mbind(2).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from schedhook.host.areas import read_areas
from schedhook.host.policies import find_task_area, parse_policy, read_thread_policies
from schedhook.values.model import Area, MemoryKind
from schedhook.values.objects import ObjectId
from schedhook.values.policy import Policy, PolicyCount
from schedhook.values.sets import NodeSet


@dataclass(frozen=True, slots=True, kw_only=True)
class Governed:
    """Memory that a policy governs."""

    policy: Policy
    size: int
    """Bytes; see PolicyCount."""
    shares: tuple[ObjectId, int] | None = None
    """The shared memory that it is, by its object and the offset in that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessPolicies:
    """The memory policies of one process, from one reading. `default` is left out."""

    threads: Mapping[int, Policy] = field(default_factory=dict)
    """By the number of the thread."""
    areas: Mapping[int, Governed] = field(default_factory=dict)
    """By the area's address."""
    unread: int = 0
    """Threads of which the policy could not be read."""

    def policies(self) -> set[Policy]:
        """Return the different policies."""
        return {*self.threads.values(), *(each.policy for each in self.areas.values())}

    def to_list(self) -> list[dict[str, Any]]:
        """Return an object for JSON for each different policy: its threads and its bytes."""
        return [self._to_dict(policy) for policy in sorted(self.policies(), key=str)]

    def _to_dict(self, policy: Policy) -> dict[str, Any]:
        its = self.only(lambda each, _: each == policy)
        size = count_policies([its]).bytes
        return {"policy": str(policy), "threads": sorted(its.threads), "bytes": size}

    def only(
        self, wanted: Callable[[Policy, Policy | None], bool], was: Self | None = None
    ) -> Self:
        """Return those for which `wanted` is true, called with what the policy is and `was`."""
        old = was or type(self)()
        known = {start: each.policy for start, each in old.areas.items()}
        return replace(
            self,
            threads={
                tid: policy
                for tid, policy in self.threads.items()
                if wanted(policy, old.threads.get(tid))
            },
            areas={
                start: each
                for start, each in self.areas.items()
                if wanted(each.policy, known.get(start))
            },
        )


def collect_policies(
    areas: Sequence[Area], threads: Mapping[int, Policy | None]
) -> ProcessPolicies:
    """Return what the areas and the threads of a process say.

    An area has a policy of its own if it shows another one than the thread through which it was
    read. One that was given the same policy as the thread looks the same as one without, and counts
    as governed by the thread.
    """
    shown = find_task_area(areas)
    governed = {}
    for area in areas:
        policy = parse_policy(area.policy)
        own = shown is not None and area.policy != shown.policy
        if policy is None or not policy.nodes or not (own or area.kind is not MemoryKind.FILE):
            continue
        governed[area.start] = Governed(
            policy=policy,
            size=area.mapped if own else area.resident,
            shares=(area.object_id, area.offset) if area.is_shared and area.object_id else None,
        )
    return ProcessPolicies(
        threads={tid: policy for tid, policy in threads.items() if policy and policy.nodes},
        areas=governed,
        unread=sum(policy is None for policy in threads.values()),
    )


def read_policies(pid: int, root: Path = Path("/")) -> ProcessPolicies:
    """Read the policies of a process; this walks its page tables.

    Raise ProcessGoneError or NoPermissionError.
    """
    areas = read_areas(pid, root)
    return collect_policies(areas, read_thread_policies(pid, areas, root))


def count_policies(processes: Iterable[ProcessPolicies]) -> PolicyCount:
    """Return how much the policies govern; a shared object counts once."""
    threads, size = 0, 0
    objects: dict[tuple[ObjectId, int], int] = {}
    for process in processes:
        threads += len(process.threads)
        for each in process.areas.values():
            if each.shares is None:
                size += each.size
            else:
                objects[each.shares] = max(objects.get(each.shares, 0), each.size)
    return PolicyCount(threads=threads, bytes=size + sum(objects.values()))


def left_behind(
    now: ProcessPolicies, before: ProcessPolicies, moves: Mapping[int, int], vacated: NodeSet
) -> ProcessPolicies:
    """Return those policies that do not name the nodes that the map says.

    `moves` is old node → new node, `vacated` are the nodes that memory only leaves. A node that is
    both old and new is right for a policy that has followed, and wrong for one that has not: if it
    is the same as `before`, it has not. A new thread or area counts if it names a vacated node.
    """

    def is_left(policy: Policy, was: Policy | None) -> bool:
        if policy.nodes & vacated:
            return True
        return policy == was and policy.mapped(moves) != policy

    return now.only(is_left, before)
