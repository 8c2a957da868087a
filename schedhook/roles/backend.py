"""What a backend is: the calls that look at memory and move it, for one process at a time.

`native` performs Linux system calls, `simulated` keeps everything in memory. A strategy sees only
these protocols, so it runs on either.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from schedhook.host.topology import Topology
from schedhook.values.extents import Extents
from schedhook.values.model import Area
from schedhook.values.sets import NodeSet


@dataclass(frozen=True, slots=True, kw_only=True)
class PageRun:
    """Neighbouring pages that lie on one node: addresses [start, end)."""

    start: int
    end: int
    node: int
    page_size: int = field(default=4096, compare=False)
    """Bytes of each page that move as one: a transparent huge page counts as one page, where the
    backend can tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Addresses [start, end) of which some pages stayed, all for the reason `errno`.

    `size` is what stayed, in bytes: a long list of scattered pages is told as ranges that cover
    them. Sweeping the range again tries just those pages, since the others have left the node.
    """

    start: int
    end: int
    errno: int
    size: int
    page_size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How hard a sweep may press on the target."""

    batch_bytes: int = 8 << 20
    """Most that one system call moves."""
    call_seconds: float = 0.0
    """Bound on one call's duration; the batch shrinks and grows to meet it. 0: no bound."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """What one sweep over a range did. All sizes in bytes."""

    moved: Mapping[tuple[int, int], int] = field(default_factory=dict)
    """By (old node, new node), each page confirmed by its status or by asking again."""
    failures: Sequence[Failure] = ()
    calls: int = 0
    longest_call: float = 0.0
    """Seconds that the longest move call took."""
    gone: bool = False
    """The process exited before the sweep was through."""


class Target(Protocol):
    """One process, held so that its number cannot be taken for another process's.

    A context manager; every method raises ProcessGoneError once the process has exited.
    """

    @property
    def pid(self) -> int: ...

    @property
    def command(self) -> str: ...

    @property
    def skips_holes(self) -> bool:
        """Whether address space without pages costs a sweep next to nothing."""
        ...

    @property
    def mistaken(self) -> str | None:
        """A sentence for the report where a call may have met another process, which had just got
        this one's number; else None."""
        ...

    def alive(self) -> bool:
        """Whether the process that was attached still runs (not: another one of its number)."""
        ...

    def areas(self) -> tuple[Area, ...]:
        """Its mappings with their residency, read anew."""
        ...

    def allowed_nodes(self) -> NodeSet:
        """Nodes that its cpuset allows (Mems_allowed, proc(5))."""
        ...

    def memory_owner_pid(self) -> int | None:
        """The parent's number, where the process has no memory of its own but runs in the
        parent's: a child of vfork(2), until it runs a program or exits. Else None."""
        ...

    def swapped(self) -> int:
        """Bytes of it in swap, on no node (VmSwap, proc(5))."""
        ...

    def migrate(self, sources: NodeSet, destinations: NodeSet) -> int:
        """One migrate_pages(2) call: n-th source to n-th destination.

        Returns the kernel's count of folios that it did not move, which leaves out some: only
        reading residency again tells. BackendError and NoPermissionError for a whole-call error;
        with ENOMEM some pages have moved.
        """
        ...

    def sweep(
        self,
        area: Area,
        start: int,
        end: int,
        destinations: Mapping[int, int],
        *,
        shared: bool,
        limits: Limits,
        only: Extents | None = None,
    ) -> Sweep:
        """Move the pages of `area` within [start, end) from each node that is a key of
        `destinations` to its value; move_pages(2). `shared`: also pages that other processes map
        (MPOL_MF_MOVE_ALL). `only`: no pages but those that lie whole within one of these extents.
        Pages that stayed come back as failures, with reasons.
        """
        ...

    def locate(self, area: Area, start: int, end: int) -> Sequence[PageRun]:
        """Where the present pages of `area` within [start, end) lie, neighbours joined."""
        ...

    def close(self) -> None: ...

    def __enter__(self) -> Target: ...

    def __exit__(self, *exc: object) -> None: ...


class Backend(Protocol):
    """A way to reach processes and nodes."""

    name: str

    def topology(self) -> Topology:
        """Nodes, processors, distances and free memory, read anew."""
        ...

    def attach(self, pid: int) -> Target:
        """Hold a process. ProcessGoneError where there is none; NoPermissionError where its memory
        may not be moved, found by asking the kernel before anything moves."""
        ...

    def may_move_shared(self) -> bool:
        """Whether the caller has CAP_SYS_NICE, which MPOL_MF_MOVE_ALL needs."""
        ...

    def allowed_nodes(self) -> NodeSet:
        """Nodes of the caller's own cpuset, to which migrate_pages(2) silently narrows."""
        ...

    def cgroup_pids(self, path: str) -> Iterable[int]:
        """Process numbers in a cgroup and all below it; UsageError where there is no such one."""
        ...
