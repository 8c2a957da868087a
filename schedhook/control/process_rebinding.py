"""Rebind the memory policies of one process: of its threads, and of areas of its memory.

An area's own policy comes before that of the thread. /proc/PID/numa_maps shows which threads and
areas need not be disturbed; it shows neither whether an area has a policy of its own nor a policy's
nodes as the process has set them, so a stopped thread asks the kernel.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from schedhook.control.kernel_policies import KernelPolicy, Range, get_policy, set_policy
from schedhook.control.remote import RemoteProcess, Visit
from schedhook.control.threads import Thread, read_threads
from schedhook.host.policies import parse_policy
from schedhook.host.processes import is_io_worker, read_status
from schedhook.host.vanishing import read_living
from schedhook.roles.backend import Target
from schedhook.values.errors import ProcessGoneError, RefusedError
from schedhook.values.model import Area, MemoryKind
from schedhook.values.objects import ObjectId

_RESCANS = 5
"""Looks for threads that appeared while others were rebound."""
_BATCH = 64
"""Areas that are rebound while one thread stands still."""
_MOST_FAILURES = 3
"""Threads that cannot be rebound, after which the process's others are left alone."""


@dataclass(frozen=True, slots=True)
class Change:
    """The policy of a thread, or of an area of its process, before and after."""

    thread: Thread
    area: Range | None
    old: KernelPolicy
    new: KernelPolicy


@dataclass(slots=True)
class Ledger:
    """What has been rebound by one node map, in all processes."""

    moves: Mapping[int, int]
    """Old node → new node."""
    overlaps: bool
    """A node is both old and new: a policy that names it may have been rebound already."""
    changes: list[Change] = field(default_factory=list)
    objects: set[tuple[ObjectId, int, int]] = field(default_factory=set)
    """Parts of shared objects, whose policy every process sees, by offset and size."""

    def was_inherited(self, policy: KernelPolicy) -> bool:
        """Return whether a new thread may have it from a thread that was rebound."""
        return self.overlaps and any(change.new == policy for change in self.changes)


class ProcessRebinding:
    """The rebinding of one process, whose threads `remote` reaches."""

    def __init__(
        self, target: Target, remote: RemoteProcess, ledger: Ledger, root: Path = Path("/")
    ) -> None:
        self._target = target
        self._remote = remote
        self._ledger = ledger
        self._root = root
        self._failures: list[RefusedError] = []

    def rebind(self, *, late: bool) -> None:
        """Rebind what names an old node. Raise RefusedError if some of it cannot be rebound.

        `late`: the process may have inherited policies that were rebound.
        """
        self._rebind_threads(late)
        # Only now: an area without a policy is shown with that of the thread.
        areas = areas_to_rebind(self._target.mappings(), self._ledger.moves)
        for start in range(0, len(areas), _BATCH):
            batch = areas[start : start + _BATCH]
            thread = self._remote.first_thread()
            self._try(thread, partial(self._rebind_areas, thread, batch, late))
        if self._failures:
            raise self._failures[-1]

    def _rebind_threads(self, late: bool) -> None:
        areas = self._target.areas()
        tried = set[Thread]()
        for _ in range(_RESCANS):
            found = threads_to_rebind(self._target, areas, self._ledger.moves, self._root)
            if not (new := [thread for thread in found if thread not in tried]):
                break
            for thread in new:
                self._try(thread, partial(self._rebind_one, thread, None, late))
            tried.update(new)
            late = True

    def _try(self, thread: Thread, work: Callable[[Visit], None]) -> None:
        if len(self._failures) >= _MOST_FAILURES:
            return
        try:
            self._remote.visit(thread, work)
        except ProcessGoneError:
            if not self._target.alive():
                raise
        except RefusedError as refusal:
            self._failures.append(refusal)

    def _rebind_areas(
        self, thread: Thread, areas: Iterable[Area], late: bool, visit: Visit
    ) -> None:
        for area in areas:
            shared = _shared_object(area)
            if shared is None or shared not in self._ledger.objects:
                self._rebind_one(thread, Range(area.start, area.size), late, visit)
                if shared is not None:
                    self._ledger.objects.add(shared)

    def _rebind_one(self, thread: Thread, area: Range | None, late: bool, visit: Visit) -> None:
        """Rebind the stopped thread's policy, or an area's."""
        old = get_policy(visit, area)
        if old is None or (late and self._ledger.was_inherited(old)):
            return
        allowed = read_status(thread.pid, self._root, task=thread.tid).allowed_nodes
        new = old.follow(self._ledger.moves, allowed)
        if new == old:
            return
        if number := set_policy(visit, new, area):
            raise RefusedError(
                f"the kernel does not set its policy to node {new.nodes}: {os.strerror(number)}"
            )
        self._ledger.changes.append(Change(thread, area, old, get_policy(visit, area) or new))


def threads_to_rebind(
    target: Target, areas: Sequence[Area], moves: Mapping[int, int], root: Path = Path("/")
) -> list[Thread]:
    """Return the process's threads whose policy names a node that is a key of `moves`.

    `areas` are the process's. A thread of which the policy could not be read may be one of them;
    those by which the kernel works for io_uring(7) run no code of the process, and are not.
    """
    pid = target.pid
    policies = target.thread_policies(areas)
    named = [tid for tid, policy in policies.items() if policy is None or policy.nodes & moves]
    workers = dict(read_living(named, lambda tid: is_io_worker(pid, tid, root)))
    return [thread for thread in read_threads(pid, root) if workers.get(thread.tid) is False]


def areas_to_rebind(areas: Iterable[Area], moves: Mapping[int, int]) -> list[Area]:
    """Return those that are shown with a policy that names a node that is a key of `moves`."""
    policies = ((area, parse_policy(area.policy)) for area in areas)
    return [area for area, policy in policies if policy and policy.nodes & moves]


def _shared_object(area: Area) -> tuple[ObjectId, int, int] | None:
    """Return the part of an object that has the policy instead of the area; None for others."""
    if area.object_id is None or area.kind not in (MemoryKind.SHMEM, MemoryKind.HUGE):
        return None
    return area.object_id, area.offset, area.size
