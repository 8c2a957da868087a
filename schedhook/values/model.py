"""The values that travel through a relocation. All are frozen; sizes are bytes, times seconds.

Words: a *host* is a machine, a *node* a NUMA node, *residency* bytes per node, a *relocation* the
way from an old placement to a new one.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from schedhook.values.sets import CpuSet, NodeSet

Residency = Mapping[int, int]
"""Bytes per node number."""


class MemoryKind(StrEnum):
    """What backs a memory area."""

    ANON = "anon"
    FILE = "file"
    SHMEM = "shmem"
    HUGE = "huge"


class Shared(StrEnum):
    """Which pages that several processes map are moved."""

    NONE = "none"
    """Only pages that one process maps (MPOL_MF_MOVE)."""
    JOB = "job"
    """Anonymous, shmem and huge pages always; file pages when only the job's processes map them."""
    ALL = "all"
    """Everything, the system's own libraries included."""


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


class Reason(StrEnum):
    """Why a page did not move; the keys of a report's `left_by_reason`."""

    BUSY = "EBUSY"
    """In use just now, or pinned for long (RDMA, io_uring): not isolated, or not migrated."""
    NO_MEMORY = "ENOMEM"
    """No free page of its size on the destination node."""
    SHARED = "shared"
    """Other processes map it, and moving shared pages was not allowed or not asked for (EACCES)."""
    ELSEWHERE = "elsewhere"
    """A strategy placed it, and it is found on another node: put or moved there meanwhile."""
    HIDDEN = "hidden"
    """In memory, and move_pages(2) does not find it: see schedhook.migration.unreachable."""
    APPEARED = "appeared"
    """The job put it on a source node after the move had passed there."""
    SKIPPED = "skipped"
    """The strategy decided to leave it."""
    ABORTED = "aborted"
    """An error ended the relocation before the page was tried."""
    UNEXPLAINED = "unexplained"
    """Still there after a whole-process call; the kernel does not say why."""

    @classmethod
    def of_errno(cls, number: int) -> str:
        """The reason for a page's status of -`number`, move_pages(2); others by errno name."""
        known = _REASON_OF_ERRNO.get(number)
        return known.value if known else errno.errorcode.get(number, f"errno-{number}")


_REASON_OF_ERRNO = {
    errno.EBUSY: Reason.BUSY,
    errno.EAGAIN: Reason.BUSY,
    errno.ENOMEM: Reason.NO_MEMORY,
    errno.EACCES: Reason.SHARED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Area:
    """One mapping of a process, as /proc/PID/maps and numa_maps tell it; see proc(5), numa(7)."""

    start: int
    end: int
    kind: MemoryKind
    page_size: int
    residency: Residency
    path: str = ""
    """The backing file's name, empty for anonymous memory."""
    policy: str = "default"
    """The memory policy, as numa_maps writes it: `default`, `bind:0`, `prefer:1`, …"""
    is_shared: bool = False
    """Mapped MAP_SHARED."""
    object_key: tuple[str, int, int] | None = None
    """(device, inode, offset) of a shared object; the same memory in two processes has one key."""
    most_mappers: int = 1
    """The largest number of processes that map one of its pages (numa_maps' mapmax)."""

    @property
    def size(self) -> int:
        return self.end - self.start

    @property
    def resident(self) -> int:
        return sum(self.residency.values())

    def resident_on(self, nodes: NodeSet) -> int:
        """Bytes on any of `nodes`."""
        return sum(size for node, size in self.residency.items() if node in nodes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """A job's, or a task's, processors and nodes on one host."""

    cpus: CpuSet
    nodes: NodeSet


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementOverride:
    """A placement that is to hold, whatever the scheduler writes, until the job ends."""

    was: Placement
    """What the scheduler gave the job, and goes on writing."""
    placement: Placement
    leaving: CpuSet | None = None
    """The processors that the job is being moved away from; None once it has arrived."""
    reapplying: bool = False
    """It is being made to hold again."""
    at: float = 0.0

    @property
    def under_way(self) -> bool:
        """Whoever finds it so, with nobody at work on the job, finishes what was interrupted."""
        return self.leaving is not None or self.reapplying


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeMap:
    """Old node → new node. Nodes that stay where they are may be named or left out.

    `mapper` is the name of what made it, `note` a sentence for people where the rule did something
    that one could overlook (a wrap, say).
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
        return NodeSet(self.moves)

    @property
    def destinations(self) -> NodeSet:
        return NodeSet(self.moves.values())

    @property
    def overlaps(self) -> bool:
        """Whether a page that arrived could be taken for one that has yet to leave."""
        return bool(self.sources & self.destinations)

    def __str__(self) -> str:
        return ",".join(f"{old}:{new}" for old, new in sorted(self.pairs.items()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that a scheduler said about a job on this host."""

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
    """Bytes on a source node that the request leaves alone, by why (`shared-file`, `file`, …)."""
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
    """Free bytes on each destination node, as the kernel counts them."""
    reserve: int = 0
    """Bytes that have to stay free on each destination node."""
    refusal: str | None = None
    """Why it must not be carried out; None where it may."""

    @property
    def moves(self) -> dict[tuple[int, int], int]:
        """Bytes per (old node, new node) over all processes."""
        total: dict[tuple[int, int], int] = {}
        for process in self.processes:
            for pair, size in process.moves.items():
                total[pair] = total.get(pair, 0) + size
        return total

    @property
    def bytes_planned(self) -> int:
        return sum(process.bytes_planned for process in self.processes)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessReport:
    """What became of one process."""

    pid: int
    command: str
    residency_before: Residency
    residency_after: Residency
    bytes_moved: int
    bytes_left: int
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a relocation did. bytes_planned = bytes_moved + bytes_left; bytes_left is the sum of
    left_by_reason and comes from reading residency again."""

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
    """Bytes on source nodes that the request did not ask to move, by why; not in bytes_left."""
    attempts: int = 0
    seconds: float = 0.0
    processes: tuple[ProcessReport, ...] = ()
    notes: tuple[str, ...] = ()
    """Sentences for people: a wrap of the node map, a refusal's reason, what fell back to what."""
    plan: Plan | None = None

    def to_dict(self) -> dict[str, Any]:
        """The object that `relocate --json` prints."""
        result: dict[str, Any] = {
            "outcome": self.outcome.value,
            "job": self.job,
            "strategy": self.strategy,
            "backend": self.backend,
            "mapper": self.node_map.mapper,
            "node_map": by_name(self.node_map.pairs),
            "bytes_planned": self.bytes_planned,
            "bytes_moved": self.bytes_moved,
            "bytes_left": self.bytes_left,
            "left_by_reason": dict(self.left_by_reason),
            "bytes_kept": dict(self.kept),
            "attempts": self.attempts,
            "seconds": round(self.seconds, 6),
            "processes": [
                {
                    "pid": process.pid,
                    "command": process.command,
                    "residency_before": by_name(process.residency_before),
                    "residency_after": by_name(process.residency_after),
                    "bytes_moved": process.bytes_moved,
                    "bytes_left": process.bytes_left,
                    "error": process.error,
                }
                for process in self.processes
            ],
            "notes": list(self.notes),
        }
        if self.plan is not None:
            result["plan"] = {
                "moves": [
                    {"from": old, "to": new, "bytes": size}
                    for (old, new), size in sorted(self.plan.moves.items())
                ],
                "free": by_name(self.plan.free),
                "reserve": self.plan.reserve,
                "refusal": self.plan.refusal,
                "processes": [
                    {
                        "pid": process.pid,
                        "command": process.command,
                        "bytes_planned": process.bytes_planned,
                        "moves": [
                            {"from": old, "to": new, "bytes": size}
                            for (old, new), size in sorted(process.moves.items())
                        ],
                        "error": process.error,
                    }
                    for process in self.plan.processes
                ],
            }
        return result


def by_name(residency: Mapping[int, int]) -> dict[str, int]:
    """JSON's form of a mapping with node numbers as keys, in ascending order."""
    return {str(node): value for node, value in sorted(residency.items())}


def add_residency(total: dict[int, int], more: Residency) -> None:
    """Add `more` to `total`, node by node."""
    for node, size in more.items():
        total[node] = total.get(node, 0) + size
