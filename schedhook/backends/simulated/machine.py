"""A simulated machine: its processes, its free memory, and moves between its nodes."""

from __future__ import annotations

import errno
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from schedhook.backends.simulated.free_memory import FreeMemory
from schedhook.backends.simulated.memory import Mapped, Memory, Process, Tally
from schedhook.roles.backend import PageRun
from schedhook.values.errors import ProcessGoneError, UsageError
from schedhook.values.model import Area
from schedhook.values.page_sizes import PageSizes
from schedhook.values.sets import NodeSet


@dataclass(slots=True, kw_only=True)
class Machine:
    """The state that a backend and its targets share; hold `lock` while using it."""

    free: FreeMemory
    may_move_shared: bool
    allowed_nodes: NodeSet
    """The nodes of the caller's own cpuset."""
    page_sizes: PageSizes
    processes: dict[int, Process] = field(default_factory=dict)
    named: dict[str, Memory] = field(default_factory=dict)
    """Shared memory by name."""
    cgroups: dict[str, set[int]] = field(default_factory=dict)
    """Processes by the cgroup's path."""
    lock: threading.RLock = field(default_factory=threading.RLock)

    @property
    def memory_nodes(self) -> NodeSet:
        """The nodes that can hold pages."""
        return self.free.topology().memory_nodes

    def begin_call(self, process: Process) -> bool:
        """Count a call on the process; return False if the process exits during this call.

        Raise ProcessGoneError if it has exited before.
        """
        if not process.alive:
            raise ProcessGoneError(f"process {process.pid} has exited")
        if process.fork_after is not None:
            process.fork_after -= 1
            if process.fork_after == 0:
                self._fork(process)
        if process.exit_after is None:
            return True
        process.exit_after -= 1
        return process.exit_after > 0

    def end_process(self, pid: int) -> None:
        """Let the process exit; free its memory unless another process maps it."""
        process = self.processes.pop(pid)
        process.alive = False
        for mapping in process.mappings:
            if not self._mappers()[id(mapping.memory)]:
                for run in mapping.memory.runs:
                    self.free.take(mapping.memory, run.node, run.start - run.end)
                self.named = {k: v for k, v in self.named.items() if v is not mapping.memory}

    def find_page(self, pid: int, address: int) -> tuple[Memory, int]:
        """Return the memory and the offset in it of the page at `address`. Raise UsageError."""
        for mapping in self.processes[pid].mappings:
            if mapping.area.start <= address < mapping.area.end:
                return mapping.memory, mapping.offset_of(address)
        raise UsageError(f"process {pid} maps nothing at {address:#x}")

    def current_areas(self, process: Process) -> Iterator[Area]:
        """Yield the process's areas with their present residency and number of mappers."""
        counts = self._mappers()
        for mapping in process.mappings:
            most = max(mapping.area.most_mappers, counts[id(mapping.memory)])
            yield replace(mapping.area, residency=mapping.residency(), most_mappers=most)

    def move(self, mapping: Mapped, run: PageRun, node: int, *, shared: bool, tally: Tally) -> None:
        """Try to move a part of one run to `node` and count the result, failures by address."""
        memory, base = mapping.memory, mapping.area.start
        if not shared and max(mapping.area.most_mappers, self._mappers()[id(memory)]) > 1:
            tally.fail(base + run.start, base + run.end, errno.EACCES, memory.unit)
            return
        for start, end, number in memory.attempts(run.start, run.end):
            if number:
                tally.fail(base + start, base + end, number, memory.unit)
                continue
            fits = min(end - start, self.free.room(memory, node) // memory.unit * memory.unit)
            if fits:
                memory.place(start, start + fits, node)
                self.free.take(memory, node, fits)
                self.free.take(memory, run.node, -fits)
                tally.succeed(run.node, node, fits)
            if start + fits < end:
                tally.fail(base + start + fits, base + end, errno.ENOMEM, memory.unit)

    def _fork(self, process: Process) -> None:
        self.processes[process.child] = replace(
            process,
            pid=process.child,
            mappings=list(process.mappings),
            exit_after=None,
            fork_after=None,
            memory_owner_pid=None,
        )
        for pids in self.cgroups.values():
            if process.pid in pids:
                pids.add(process.child)

    def _mappers(self) -> Counter[int]:
        """Return how often each memory is mapped, by its identity."""
        address_spaces = {id(each.mappings): each.mappings for each in self.processes.values()}
        return Counter(
            id(mapping.memory) for mappings in address_spaces.values() for mapping in mappings
        )
