"""What the manual pages promise of a process, done to a simulated one."""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from schedhook.backends.simulated.memory import Mapped, Process, Tally, parts
from schedhook.roles.backend import Limits, PageRun, Sweep, Target
from schedhook.values.errors import ProcessGoneError, UsageError, from_errno
from schedhook.values.extents import Extents
from schedhook.values.model import Area
from schedhook.values.nodemap import kernel_rule
from schedhook.values.sets import NodeSet

if TYPE_CHECKING:
    from schedhook.backends.simulated.backend import SimulatedBackend


class SimulatedTarget(Target):
    """A process of a SimulatedBackend."""

    def __init__(self, backend: SimulatedBackend, process: Process) -> None:
        self._backend = backend
        self._process = process

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def command(self) -> str:
        return self._process.command

    def alive(self) -> bool:
        return self._process.alive

    def areas(self) -> tuple[Area, ...]:
        with self._backend.lock:
            self._begin_or_gone()
            told = (self._backend.told(mapping) for mapping in self._process.mappings)
            return tuple(sorted((area for area in told if area.resident), key=lambda a: a.start))

    def allowed_nodes(self) -> NodeSet:
        if not self._process.alive:
            raise ProcessGoneError(f"process {self.pid} has exited")
        return self._process.allowed_nodes

    def memory_owner_pid(self) -> int | None:
        return self._process.memory_owner_pid

    def swapped(self) -> int:
        return self._process.swapped

    def migrate(self, sources: NodeSet, destinations: NodeSet) -> int:
        """As do_migrate_pages() in the kernel's mm/mempolicy.c: one pair of nodes after the other,
        first those whose destination has nothing to be moved away any more."""
        backend, process = self._backend, self._process
        if not sources or not destinations:
            raise UsageError("migrate_pages needs at least one old and one new node")
        with backend.lock:
            self._begin_or_gone()
            privileged = backend.may_move_shared()
            if destinations - process.allowed_nodes and not privileged:
                raise from_errno(errno.EPERM, self.pid, "migrate_pages")
            destinations = destinations & backend.allowed_nodes() & backend.topology().memory_nodes
            if not destinations:
                raise from_errno(errno.EINVAL, self.pid, "migrate_pages")
            left = {a: b for a, b in kernel_rule(sources, destinations).items() if a != b}
            tally = Tally()
            while left:
                old = next((a for a, b in left.items() if b not in left), next(iter(left)))
                new = left.pop(old)
                for mapping in process.mappings:
                    for run in mapping.memory.within(0, mapping.area.size):
                        if run.node == old:
                            backend.move(mapping, run, new, shared=privileged, tally=tally)
                if any(failure.errno == errno.ENOMEM for failure in tally.failures):
                    raise from_errno(errno.ENOMEM, self.pid, "migrate_pages")
            # What could not even be isolated is not in the kernel's count.
            stuck = (item for item in tally.failures if item.errno == errno.EAGAIN)
            return sum(failure.size // failure.page_size for failure in stuck)

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
        backend = self._backend
        with backend.lock:
            stays = backend.begin(self._process)
            if shared and not backend.may_move_shared():
                raise from_errno(errno.EPERM, self.pid, "move_pages")
            if not stays:  # it exits half way through
                end = start + (end - start) // 2 // area.page_size * area.page_size
            tally = Tally()
            mapping = self._mapping(area)
            size = 0
            for run in self._runs(mapping, start, end):
                new = destinations.get(run.node, run.node)
                if new == run.node:
                    continue
                for part in parts(run, only, mapping):
                    self._check_destination(new)
                    size += part.end - part.start
                    backend.move(mapping, part, new, shared=shared, tally=tally)
            if not stays:
                backend.end_process(self.pid)
            return Sweep(
                moved=tally.moved,
                failures=tuple(tally.failures),
                calls=-(-size // limits.batch_bytes),
                gone=not stays,
            )

    def locate(self, area: Area, start: int, end: int) -> Sequence[PageRun]:
        with self._backend.lock:
            self._begin_or_gone()
            mapping = self._mapping(area)
            base = mapping.area.start
            return [
                replace(
                    run,
                    start=max(start, base + run.start),
                    end=min(end, base + run.end),
                    page_size=mapping.memory.unit,
                )
                for run in self._runs(mapping, start, end)
            ]

    def _begin_or_gone(self) -> None:
        if not self._backend.begin(self._process):
            self._backend.end_process(self.pid)
            raise ProcessGoneError(f"process {self.pid} has exited")

    def _mapping(self, area: Area) -> Mapped:
        for mapping in self._process.mappings:
            if mapping.area.start <= area.start and area.end <= mapping.area.end:
                return mapping
        raise UsageError(f"process {self.pid} maps nothing at {area.start:#x}")

    def _runs(self, mapping: Mapped, start: int, end: int) -> list[PageRun]:
        base = mapping.area.start
        return mapping.memory.found(start - base, end - base) if start < end else []

    def _check_destination(self, node: int) -> None:
        if node not in self._backend.topology().memory_nodes:
            raise from_errno(errno.ENODEV, self.pid, "move_pages")
        if node not in self._process.allowed_nodes:
            raise from_errno(errno.EACCES, self.pid, "move_pages")
