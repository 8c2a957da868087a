"""A simulated process, with the system calls as their manual pages describe them."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from schedhook.backends.simulated.machine import Machine
from schedhook.backends.simulated.memory import Mapped, Process, SeenMemory, Tally, parts
from schedhook.roles.backend import Limits, PageRun, PageSet, Part, Survey, Sweep, Target
from schedhook.values.errors import ProcessGoneError, UsageError, from_errno
from schedhook.values.extents import Extents
from schedhook.values.model import Area
from schedhook.values.nodemap import kernel_rule
from schedhook.values.page_sizes import PageSizes
from schedhook.values.sets import NodeSet
from schedhook.values.sizes import add_sizes


class SimulatedTarget(Target):
    """A process of a SimulatedBackend."""

    def __init__(self, machine: Machine, process: Process) -> None:
        self._machine = machine
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
        with self._machine.lock:
            self._begin_or_gone()
            areas = self._machine.current_areas(self._process)
            return tuple(sorted((area for area in areas if area.resident), key=lambda a: a.start))

    def allowed_nodes(self) -> NodeSet:
        if not self._process.alive:
            raise self._gone()
        return self._process.allowed_nodes

    def survey(self, area: Area, part: Part, seen: PageSet | None) -> Survey | None:
        with self._machine.lock:
            self._begin_or_gone()
            memory, base = self._mapping(area).memory, self._mapping(area).area.start
            # On a snapshot of a host, the copies are laid out first.
            bounds = {Part.COPIES: (0, area.copied), Part.ORIGINALS: (area.copied, area.size)}
            runs = memory.within(*bounds.get(part, (0, area.size)))
            if isinstance(seen, SeenMemory):
                runs = [*seen.fresh(memory, runs)]
            residency: dict[int, int] = {}
            for run in runs:
                add_sizes(residency, {run.node: run.end - run.start})
            pages = Extents((base + run.start, base + run.end) for run in runs)
            is_all = pages.size == sum(run.end - run.start for run in memory.within(0, area.size))
            return Survey(residency=residency, pages=None if is_all else pages)

    def memory_owner_pid(self) -> int | None:
        return self._process.memory_owner_pid

    def swapped(self) -> int:
        return self._process.swapped

    def migrate(self, sources: NodeSet, destinations: NodeSet) -> int:
        # As do_migrate_pages() in the kernel's mm/mempolicy.c: one pair of nodes after the other,
        # first the pairs from whose destination nothing is left to move away.
        machine, process = self._machine, self._process
        if not sources or not destinations:
            raise UsageError("migrate_pages needs at least one old and one new node")
        with machine.lock:
            self._begin_or_gone()
            left = self._pairs(sources, destinations)
            tally = Tally()
            while left:
                old = next((a for a, b in left.items() if b not in left), next(iter(left)))
                new = left.pop(old)
                for mapping in process.mappings:
                    for run in mapping.memory.within(0, mapping.area.size):
                        if run.node == old:
                            shared = machine.may_move_shared
                            machine.move(mapping, run, new, shared=shared, tally=tally)
                if any(failure.errno == errno.ENOMEM for failure in tally.failures):
                    raise from_errno(errno.ENOMEM, self.pid, "migrate_pages")
            # The kernel's count does not include pages that it could not even isolate.
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
        machine = self._machine
        with machine.lock:
            stays = machine.begin_call(self._process)
            if shared and not machine.may_move_shared:
                raise from_errno(errno.EPERM, self.pid, "move_pages")
            if not stays:  # it exits half way through
                end = start + (end - start) // 2 // area.page_size * area.page_size
            tally = Tally()
            size = 0
            for mapping, run in self._found(area, start, end):
                new = destinations.get(run.node, run.node)
                if new == run.node:
                    continue
                for part in parts(run, only, mapping):
                    self._check_destination(new)
                    size += part.end - part.start
                    if part.hidden:
                        first, last = (mapping.area.start + at for at in (part.start, part.end))
                        tally.fail(first, last, errno.ENOENT, mapping.memory.unit)
                        mapping.memory.seek(part.start, part.end)
                        continue
                    machine.move(mapping, part, new, shared=shared, tally=tally)
            if not stays:
                machine.end_process(self.pid)
            return Sweep(
                moved=tally.moved,
                failures=tuple(tally.failures),
                calls=-(-size // limits.batch_bytes),
                gone=not stays,
            )

    def locate(self, area: Area, start: int, end: int) -> Sequence[PageRun]:
        with self._machine.lock:
            self._begin_or_gone()
            return [
                replace(
                    run,
                    start=max(start, mapping.area.start + run.start),
                    end=min(end, mapping.area.start + run.end),
                    page_size=mapping.memory.unit,
                )
                for mapping, run in self._found(area, start, end)
            ]

    @property
    def page_sizes(self) -> PageSizes:
        return self._machine.page_sizes

    def _pairs(self, sources: NodeSet, destinations: NodeSet) -> dict[int, int]:
        """Return what a migrate_pages(2) call moves, old node → new node."""
        machine = self._machine
        if destinations - self._process.allowed_nodes and not machine.may_move_shared:
            raise from_errno(errno.EPERM, self.pid, "migrate_pages")
        destinations = destinations & machine.allowed_nodes & machine.memory_nodes
        if not destinations:
            raise from_errno(errno.EINVAL, self.pid, "migrate_pages")
        return {a: b for a, b in kernel_rule(sources, destinations).items() if a != b}

    def _begin_or_gone(self) -> None:
        if not self._machine.begin_call(self._process):
            self._machine.end_process(self.pid)
            raise self._gone()

    def _gone(self) -> ProcessGoneError:
        return ProcessGoneError(f"process {self.pid} has exited")

    def _mapping(self, area: Area) -> Mapped:
        for mapping in self._process.mappings:
            if mapping.area.start <= area.start and area.end <= mapping.area.end:
                return mapping
        raise UsageError(f"process {self.pid} maps nothing at {area.start:#x}")

    def _found(self, area: Area, start: int, end: int) -> Iterator[tuple[Mapped, PageRun]]:
        """Yield the runs in [start, end) of the area's mapping, and of those behind it."""
        first = self._mapping(area)
        behind = (each for each in self._process.mappings if area.end <= each.area.start < end)
        for mapping in (first, *behind):
            bounds = max(start, mapping.area.start), min(end, mapping.area.end)
            yield from ((mapping, run) for run in self._runs(mapping, *bounds))

    def _runs(self, mapping: Mapped, start: int, end: int) -> list[PageRun]:
        base = mapping.area.start
        found = mapping.memory.found(start - base, end - base) if start < end else []
        return [run for run in found if not run.hidden or self._machine.may_move_shared]

    def _check_destination(self, node: int) -> None:
        if node not in self._machine.memory_nodes:
            raise from_errno(errno.ENODEV, self.pid, "move_pages")
        if node not in self._process.allowed_nodes:
            raise from_errno(errno.EACCES, self.pid, "move_pages")
