"""Carry out a rotation: the memory of several jobs, chunk by chunk, where there is room for it.

What moves next is decided again after each chunk, by the room that there is then and by what has
moved: a job may end, or a neighbour grow.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from schedhook.migration.backlog import Backlog, Key, Lot
from schedhook.migration.move import Move
from schedhook.migration.processes import MovingMemory
from schedhook.migration.retry import RetryPolicy, retry
from schedhook.migration.throttle import bound_thread
from schedhook.values.errors import SchedhookError
from schedhook.values.reasons import Reason
from schedhook.values.rotation import Chunk, Demand, choose_chunk
from schedhook.values.sets import CpuSet, NodeSet
from schedhook.values.sizes import add_sizes

_BEFORE_DETOUR = 4.0
"""Seconds. What has left a node can be on the list of a processor that does not move pages, until
that processor has freed none there for three seconds: refresh_cpu_vm_stats() in the kernel's
mm/vmstat.c."""
_PATIENCE = 10.0
_POLL = 0.1


@dataclass(slots=True)
class Rotating:
    """One job's memory in a rotation."""

    move: Move
    allowed: NodeSet
    """The nodes on which its memory may wait."""
    failure: str | None = None
    """The error that ended its part in the rotation, if any."""
    backlog: Backlog = field(init=False)
    left_out: list[Lot] = field(default_factory=list)
    """What stays so that the rest fits."""
    stayed: list[tuple[Key, Lot]] = field(default_factory=list)
    """What did not move when its turn came, for another attempt."""
    left: dict[int, tuple[MovingMemory, dict[str, int]]] = field(default_factory=dict)
    """The bytes that stayed by reason, of each part by its identity."""

    def __post_init__(self) -> None:
        self.backlog = Backlog(self.move.processes)

    def demands(self, number: int) -> list[Demand]:
        """Return what has yet to move, as the demands of the job `number`."""
        if self.failure is not None:
            return []
        return [
            Demand(job=number, old=old, new=new, size=size, allowed=self.allowed, waits=waits)
            for (old, new, waits), size in self.backlog.sizes().items()
        ]

    def leave_out(self, key: Key, size: int) -> None:
        """Leave so many bytes where they are, if `backlog` can."""
        self.left_out += self.backlog.leave_out(key, size)

    @property
    def bytes_left_out(self) -> int:
        """The bytes that `leave_out` has left, of processes that exist."""
        return sum(size for _, size in self._living_left_out())

    def carry_out(self, chunk: Chunk, *, retry_hidden: bool) -> None:
        """Move a chunk. Raise SchedhookError."""
        demand = chunk.demand
        key = demand.old, demand.new, demand.waits
        lots = self.backlog.take(key, chunk.size)
        moved = {id(lot.part): dict(lot.part.moved) for lot in lots}
        self.move.carry_out_lots(lots, chunk.to, retry_hidden=retry_hidden)
        parts = {id(lot.part): lot.part for lot in lots}
        self._record(parts.values())
        if chunk.is_detour:
            for number, part in parts.items():
                part.moved = moved[number]  # it counts once it has arrived
            self.backlog.put(
                (chunk.to, demand.new, True), [at for lot in lots if (at := lot.on(chunk.to))]
            )
        failed = [lot for lot in lots if chunk.is_detour or lot.part.left]
        self.stayed += [(key, still) for lot in failed if (still := lot.on(demand.old))]

    def carry_out_pooled(self) -> int:
        """Move what is of pools of huge pages, as far as these have pages; return the bytes."""
        total = 0
        pooled, self.backlog.pooled = self.backlog.pooled, []
        for new in sorted({lot.transfer.new for lot in pooled}):
            lots = [lot for lot in pooled if lot.transfer.new == new and not lot.part.gone]
            total += self.move.carry_out_lots(lots, new, retry_hidden=True)
            self.backlog.pooled += [
                still for lot in lots if lot.part.left and (still := lot.on(lot.transfer.old))
            ]
        return total

    def begin_attempt(self) -> None:
        """Let what has stayed have another turn."""
        self.left.clear()
        for key, lot in self.stayed:
            self.backlog.put(key, [lot])
        self.stayed.clear()

    def end(self) -> None:
        """Set `left` of all parts to what stayed in the last attempt."""
        for process in self.move.processes:
            process.left = {}
        for part, reasons in self.left.values():
            part.left = reasons
        if self.failure is not None:  # the reason of what was not tried
            return
        for part, size in (*self.backlog.pending(), *self._living_left_out()):
            add_sizes(part.left, {Reason.RESERVE.value: size})
        for lot in self.backlog.pooled:
            add_sizes(lot.part.left, {Reason.NO_MEMORY.value: lot.size})

    def _living_left_out(self) -> Iterator[tuple[MovingMemory, int]]:
        return ((lot.part, lot.size) for lot in self.left_out if not lot.part.gone)

    def _record(self, parts: Iterable[MovingMemory]) -> None:
        for part in parts:
            _, reasons = self.left.setdefault(id(part), (part, {}))
            add_sizes(reasons, part.left)


def rotate(
    jobs: Mapping[int, Rotating], policy: RetryPolicy, cpus_for: Callable[[int], CpuSet]
) -> None:
    """Move the memory of the jobs home, as far as there is room; `verify` tells what stayed.

    `cpus_for` returns the processors that move pages to a node; empty: any of the caller's. An
    error ends only the part of the job that it is about.
    """
    attempts = 0

    def attempt() -> bool:
        nonlocal attempts
        attempts += 1
        for job in jobs.values():
            job.begin_attempt()
        while (chunk := _await_chunk(jobs)) is not None:
            with bound_thread(cpus_for(chunk.to)):
                _carry_out(jobs[chunk.demand.job], chunk, retry_hidden=attempts > 1)
        return any(job.stayed for job in jobs.values())

    if attempt():
        retry(policy, attempt)
    _rotate_pooled(list(jobs.values()))
    for job in jobs.values():
        job.end()


def _await_chunk(jobs: Mapping[int, Rotating]) -> Chunk | None:
    """Return what moves next, after a wait if there is no room for it where it belongs.

    None if nothing is left to move, or nothing has found room for _PATIENCE seconds.
    """
    began = time.monotonic()
    while demands := _demands(jobs):
        chunk = choose_chunk(demands, jobs[demands[0].job].move.headroom.read())
        waited = time.monotonic() - began
        if chunk is not None and (not chunk.is_detour or waited >= _BEFORE_DETOUR):
            return chunk
        if waited >= _PATIENCE:
            break
        time.sleep(_POLL)
    return None


def _demands(jobs: Mapping[int, Rotating]) -> list[Demand]:
    return [each for number, job in jobs.items() for each in job.demands(number)]


def _carry_out(job: Rotating, chunk: Chunk, *, retry_hidden: bool) -> None:
    try:
        job.carry_out(chunk, retry_hidden=retry_hidden)
    except SchedhookError as error:
        job.failure = str(error)


def _rotate_pooled(jobs: Sequence[Rotating]) -> None:
    """Move pages of pools until no pool has a page for any of them."""
    pending = [job for job in jobs if job.backlog.pooled and job.failure is None]
    while pending:
        moved = sum(job.carry_out_pooled() for job in pending)
        pending = [job for job in pending if job.backlog.pooled] if moved else []
