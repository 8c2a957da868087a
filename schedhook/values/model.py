"""The values that a relocation passes on. All are frozen; sizes are bytes, times seconds.

Words: a *host* is a machine, a *node* is a NUMA node, *residency* is bytes per node, a *relocation*
moves memory from an old placement to a new one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from schedhook.values.extents import Extents
from schedhook.values.objects import ObjectId
from schedhook.values.policy import PolicyCount
from schedhook.values.room import Room
from schedhook.values.sets import CpuSet, NodeSet
from schedhook.values.sizes import MIB, sum_sizes

Residency = Mapping[int, int]
"""Bytes per node number."""


class MemoryKind(StrEnum):
    """What backs a memory area."""

    ANON = "anon"
    FILE = "file"
    SHMEM = "shmem"
    HUGE = "huge"


class Shared(StrEnum):
    """Which of the pages that several processes map are moved."""

    NONE = "none"
    """Only pages that one process maps (MPOL_MF_MOVE)."""
    JOB = "job"
    """Anonymous, shmem and huge pages; file pages only if no process outside the job maps them."""
    ALL = "all"
    """All pages, including those of system libraries."""


class Policies(StrEnum):
    """What becomes of the processes' memory policies; set_mempolicy(2)."""

    LEAVE = "leave"
    """They stay: memory that is allocated later can come from the old nodes again."""
    REBIND = "rebind"
    """Old nodes that they name are replaced by new ones, in the stopped threads; ptrace(2)."""


class Outcome(StrEnum):
    """How a relocation ended."""

    COMPLETE = "complete"
    PARTIAL = "partial"
    NOTHING_TO_DO = "nothing-to-do"
    REFUSED = "refused"
    FAILED = "failed"
    PLANNED = "planned"

    @property
    def exit_status(self) -> int:
        return _EXIT_STATUS[self]


_EXIT_STATUS = {
    Outcome.COMPLETE: 0,
    Outcome.NOTHING_TO_DO: 0,
    Outcome.PLANNED: 0,
    Outcome.PARTIAL: 3,
    Outcome.REFUSED: 4,
    Outcome.FAILED: 1,
}
WORST_FIRST = (Outcome.FAILED, Outcome.REFUSED, Outcome.PARTIAL)
"""The outcomes of which one decides the exit status of several relocations."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Area:
    """One mapping of a process, from /proc/PID/maps and numa_maps; see proc(5), numa(7).

    Or many small ones that are alike and near each other, joined; `parts` says where they are.
    """

    start: int
    end: int
    kind: MemoryKind
    page_size: int
    residency: Residency
    path: str = ""
    """The backing file's name, empty for anonymous memory."""
    policy: str = "default"
    """The memory policy as in numa_maps: `default`, `bind:0`, `prefer:1`, …"""
    is_shared: bool = False
    """Mapped MAP_SHARED."""
    object_id: ObjectId | None = None
    """The file or shared memory that it maps; None if all of its pages are the process's own."""
    offset: int = 0
    """Where in the object it begins, in bytes."""
    copied: int = 0
    """Bytes of a private mapping that are the process's own copies, made when it wrote."""
    most_mappers: int = 1
    """The largest number of processes that map one of its pages (numa_maps' mapmax)."""
    parts: Extents | None = None
    """The addresses that are mapped if some in [start, end) are not; None: all are."""

    @property
    def size(self) -> int:
        return self.end - self.start

    @property
    def mapped(self) -> int:
        """The bytes of address space that are mapped."""
        return sum(end - start for start, end in self.ranges)

    @property
    def ranges(self) -> Iterable[tuple[int, int]]:
        """The ranges [start, end) that are mapped, in ascending order."""
        return ((self.start, self.end),) if self.parts is None else self.parts

    @property
    def resident(self) -> int:
        return sum(self.residency.values())

    def resident_on(self, nodes: NodeSet) -> int:
        """Return the bytes that are on any of `nodes`."""
        return sum(size for node, size in self.residency.items() if node in nodes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """The processors and nodes of a job, or of a task, on one host."""

    cpus: CpuSet
    nodes: NodeSet


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementOverride:
    """A placement that overrides what the scheduler writes until the job ends."""

    was: Placement
    """The placement that the scheduler gave the job, and may write again."""
    placement: Placement
    """The placement that overrides it."""
    leaving: CpuSet | None = None
    """The processors that the job is being moved away from; None after the move."""
    reapplying: bool = False
    """It is being applied again after the scheduler undid it."""
    at: float = 0.0
    """When it was made, in seconds since the epoch."""

    @property
    def under_way(self) -> bool:
        """Whether a move or a reapplication has begun and not ended.

        If no process holds the job's lock, it was interrupted, and the finder completes it.
        """
        return self.leaving is not None or self.reapplying


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeMap:
    """Old node → new node. Nodes that keep their pages may be named or left out.

    `mapper` is the name of the mapper that made it. `note` is a sentence for people if the rule
    did something that is easily overlooked, such as wrapping round.
    """

    pairs: Mapping[int, int]
    mapper: str = "given"
    note: str = ""

    @property
    def moves(self) -> dict[int, int]:
        """The pairs that change something, in ascending order of the old node."""
        return {old: new for old, new in sorted(self.pairs.items()) if old != new}

    @property
    def sources(self) -> NodeSet:
        """The nodes that pages leave."""
        return NodeSet(self.moves)

    @property
    def destinations(self) -> NodeSet:
        """The nodes that pages move to."""
        return NodeSet(self.moves.values())

    @property
    def overlaps(self) -> bool:
        """Whether a node is both: a page that arrived there looks like one that must leave."""
        return bool(self.sources & self.destinations)

    def __str__(self) -> str:
        return ",".join(f"{old}:{new}" for old, new in sorted(self.pairs.items()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """An event that a scheduler reported about a job on this host."""

    scheduler: str
    point: str
    job: str
    user: int | None = None
    host: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessPlan:
    """What would move in one process: bytes per (old node, new node), each shared page once."""

    pid: int
    command: str
    residency: Residency
    moves: Mapping[tuple[int, int], int]
    kept: Mapping[str, int] = field(default_factory=dict)
    """Bytes on source nodes that the request leaves there, by reason (`shared-file`, …)."""
    error: str | None = None

    @property
    def bytes_planned(self) -> int:
        return sum(self.moves.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a relocation would do, before anything moves."""

    strategy: str
    backend: str
    node_map: NodeMap
    processes: tuple[ProcessPlan, ...]
    job: str | None = None
    free: Residency = field(default_factory=dict)
    """Free bytes on each destination node (MemFree)."""
    reclaimable: Residency = field(default_factory=dict)
    """Bytes of clean cache and slab on each destination that the kernel drops to make room."""
    dirty: Residency = field(default_factory=dict)
    """Bytes of cache on each destination that count as reclaimable once they are written back."""
    rooms: tuple[Room, ...] = ()
    """What limits the bytes that may arrive: each destination, and each fence around one."""
    pooled: Mapping[tuple[int, int], int] = field(default_factory=dict)
    """The part of `moves` that comes from pools of huge pages, and takes no room."""
    policies: PolicyCount = field(default_factory=PolicyCount)
    """Memory policies that name an old node; moving pages does not change them."""
    refusal: str | None = None
    """Why it must not be carried out; None if it may."""

    @property
    def moves(self) -> dict[tuple[int, int], int]:
        """Bytes per (old node, new node) over all processes."""
        return sum_sizes(process.moves for process in self.processes)

    @property
    def bytes_by_source(self) -> dict[int, int]:
        """Bytes that would move from each source node, over all processes."""
        total: dict[int, int] = {}
        for (old, _), size in self.moves.items():
            total[old] = total.get(old, 0) + size
        return total

    @property
    def bytes_planned(self) -> int:
        return sum(process.bytes_planned for process in self.processes)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessReport:
    """The result for one process. Sizes are bytes."""

    pid: int
    command: str
    residency_before: Residency
    residency_after: Residency
    bytes_moved: int
    bytes_left: int
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The result of a relocation. bytes_planned = bytes_moved + bytes_left.

    bytes_left is the sum of left_by_reason and comes from reading residency again.
    """

    outcome: Outcome
    strategy: str
    backend: str
    node_map: NodeMap
    job: str | None = None
    bytes_planned: int = 0
    bytes_moved: int = 0
    bytes_left: int = 0
    left_by_reason: Mapping[str, int] = field(default_factory=dict)
    kept: Mapping[str, int] = field(default_factory=dict)
    """Bytes on source nodes that the request did not ask to move, by reason; not in bytes_left."""
    bytes_reclaimed: int = 0
    """Clean cache and slab that the kernel dropped on the destinations to make room."""
    policies_left: PolicyCount = field(default_factory=PolicyCount)
    """Memory policies that still name an old node, so that new memory comes from there."""
    attempts: int = 0
    seconds: float = 0.0
    processes: tuple[ProcessReport, ...] = ()
    not_answering: tuple[int, ...] = ()
    """Processes left out because they keep the lock of their memory."""
    notes: tuple[str, ...] = ()
    """Sentences for people: a node map that wraps, the reason of a refusal, a fallback."""
    plan: Plan | None = None

    def summary(self) -> str:
        """Return one line for people: `moved 104.0 MiB 0:2, complete`."""
        moved, left = (size / MIB for size in (self.bytes_moved, self.bytes_left))
        where = f" {self.node_map}" if self.node_map.pairs else ""
        line = f"moved {moved:.1f} MiB{where}, {self.outcome.value}"
        if self.bytes_left:
            line += f", {left:.1f} MiB left ({', '.join(self.left_by_reason)})"
        if self.policies_left:
            line += f", policies left: {self.policies_left}"
        if self.outcome in (Outcome.REFUSED, Outcome.FAILED) and self.notes:
            line += f": {self.notes[-1]}"
        return line
