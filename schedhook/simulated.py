"""A backend in memory, for unit tests and for planning on a snapshot of a host.

It does what the protocol and the manual pages promise and what a test scripts. It proves nothing
about the kernel: what the kernel does is tested on the kernel.

    backend = SimulatedBackend()
    backend.add_process(100, areas=[SimulatedArea(start=0x10000, nodes=[0] * 8 + [1] * 8)])
    backend.fail(100, 0x10000, [errno.EBUSY, errno.EBUSY])
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from schedhook.backend import Failure, Limits, Run, Sweep
from schedhook.errors import ProcessGoneError, UsageError, from_errno
from schedhook.extents import Extents
from schedhook.host import cgroups, processes
from schedhook.host.topology import Node, Topology, read_topology
from schedhook.model import Area, Kind
from schedhook.nodemap import kernel_rule
from schedhook.sets import CpuSet, NodeSet

PAGE = 4096
_GIB = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedArea:
    """A mapping to be put into a process."""

    start: int
    nodes: Sequence[int | None]
    """Where each page (or folio, see there) lies, in order; None where there is none."""
    page_size: int = PAGE
    """Of a pool's huge page with `Kind.HUGE`."""
    folio_size: int = 0
    """Bytes that move as one where that is more than a page: a transparent huge page."""
    kind: Kind = Kind.ANON
    path: str = ""
    policy: str = "default"
    name: str = ""
    """Areas of one name, in whichever process, map one and the same memory (MAP_SHARED)."""


def four_nodes() -> Topology:
    """Four nodes of 1 GiB, all of it free, with a processor each."""
    return Topology(
        nodes={
            number: Node(
                number=number,
                cpus=CpuSet({number}),
                memory_total=_GIB,
                memory_free=_GIB,
                distances={other: 10 if other == number else 20 for other in range(4)},
            )
            for number in range(4)
        }
    )


class _Memory:
    """Pages by offset, as runs on one node; `unit` bytes move as one."""

    def __init__(self, unit: int, runs: Iterable[Run], pool: int = 0) -> None:
        self.unit = unit
        self.pool = pool
        """The page size of the huge-page pool that it is taken from, 0: ordinary memory."""
        self.runs = list(runs)
        self.script: dict[int, list[int]] = {}
        self.permanent: dict[int, int] = {}

    def within(self, start: int, end: int) -> list[Run]:
        """The runs in [start, end), which is widened to whole units."""
        start, end = start // self.unit * self.unit, -(-end // self.unit) * self.unit
        return [
            replace(run, start=max(run.start, start), end=min(run.end, end))
            for run in self.runs
            if run.start < end and start < run.end
        ]

    def place(self, start: int, end: int, node: int) -> None:
        """Put what lies in [start, end), a part of one run, on `node`."""
        runs: list[Run] = []
        for run in self.runs:
            if not (run.start < end and start < run.end):
                runs.append(run)
                continue
            if run.start < start:
                runs.append(replace(run, end=start))
            runs.append(Run(start=start, end=end, node=node))
            if end < run.end:
                runs.append(replace(run, start=end))
        self.runs = list(_joined(runs))

    def attempts(self, start: int, end: int) -> Iterator[tuple[int, int, int]]:
        """[start, end) in pieces with the errno that each one's attempt ends with, 0: it moves."""
        position = start
        for offset in sorted({*self.script, *self.permanent}):
            if start <= offset < end and (number := self._outcome(offset)):
                if position < offset:
                    yield position, offset, 0
                yield offset, offset + self.unit, number
                position = offset + self.unit
        if position < end:
            yield position, end, 0

    def _outcome(self, offset: int) -> int:
        if offset in self.permanent:
            return self.permanent[offset]
        coming = self.script[offset]
        return coming.pop(0) if coming else 0


@dataclass(slots=True)
class _Mapping:
    area: Area
    """As it is told, but for residency and mappers."""
    memory: _Memory

    def residency(self) -> dict[int, int]:
        total: dict[int, int] = {}
        for run in self.memory.within(0, self.area.size):
            total[run.node] = total.get(run.node, 0) + run.end - run.start
        return total


@dataclass(slots=True)
class _Process:
    pid: int
    command: str
    mappings: list[_Mapping]
    allowed_nodes: NodeSet
    permitted: bool = True
    alive: bool = True
    exit_after: int | None = None
    fork_after: int | None = None
    child: int = 0


@dataclass(slots=True)
class _Tally:
    """What one call does."""

    moved: dict[tuple[int, int], int] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)

    def fail(self, start: int, end: int, number: int, unit: int) -> None:
        last = self.failures[-1] if self.failures else None
        if last and last.errno == number and last.end == start:
            self.failures[-1] = replace(last, end=end, size=last.size + end - start)
            return
        self.failures.append(
            Failure(start=start, end=end, errno=number, size=end - start, page_size=unit)
        )


class SimulatedBackend:
    """Processes, nodes and cgroups in memory.

    Without `root` it starts empty, on `topology` (default: `four_nodes()`). With `root` it stands
    for the host whose files lie there: its topology, and each process as it is first attached;
    numa_maps tells pages per node and not which, so they are laid out in ascending order of nodes.
    """

    name = "simulated"

    def __init__(
        self,
        root: Path | None = None,
        *,
        topology: Topology | None = None,
        may_move_shared: bool = True,
        allowed_nodes: NodeSet | None = None,
    ) -> None:
        self._root = root
        if topology is None:
            topology = four_nodes() if root is None else read_topology(root)
        self._topology = topology
        self._free = {number: node.memory_free for number, node in topology.nodes.items()}
        self._pools = {
            (number, pool.size): pool.free
            for number, node in topology.nodes.items()
            for pool in node.huge_pools
        }
        self._may_move_shared = may_move_shared
        self._allowed_nodes = topology.memory_nodes if allowed_nodes is None else allowed_nodes
        self._processes: dict[int, _Process] = {}
        self._named: dict[str, _Memory] = {}
        self._cgroups: dict[str, set[int]] = {}
        self.lock = threading.RLock()

    # -- setting the scene -----------------------------------------------------------------------

    def add_process(
        self,
        pid: int,
        command: str = "simulated",
        *,
        areas: Iterable[SimulatedArea] = (),
        cgroup: str = "",
        allowed_nodes: NodeSet | None = None,
        permitted: bool = True,
        exit_after: int | None = None,
        fork_after: int | None = None,
        child: int = 0,
    ) -> None:
        """Start a process; its memory is taken from its nodes. UsageError where that is not free.

        `exit_after`: it exits within that call (counted from 1) that reads, locates, migrates or
        sweeps its memory. `fork_after`: before that call it starts the process `child`, which
        shares all its pages and is in its cgroup. `permitted`: whether it may be attached to.
        """
        allowed = self._topology.memory_nodes if allowed_nodes is None else allowed_nodes
        self._processes[pid] = _Process(
            pid=pid,
            command=command,
            mappings=[self._map(area) for area in areas],
            allowed_nodes=allowed,
            permitted=permitted,
            exit_after=exit_after,
            fork_after=fork_after,
            child=child,
        )
        if cgroup:
            self.add_cgroup(cgroup, [pid])

    def add_cgroup(self, path: str, pids: Iterable[int] = ()) -> None:
        """Make a cgroup, or put more processes into it."""
        self._cgroups.setdefault(path.strip("/"), set()).update(pids)

    def pids(self) -> tuple[int, ...]:
        """Every process, ascending."""
        return tuple(sorted(self._processes))

    def end_process(self, pid: int) -> None:
        """The process exits; its memory becomes free unless another one maps it."""
        with self.lock:
            process = self._processes.pop(pid)
            process.alive = False
            for mapping in process.mappings:
                if not self._mappers(mapping.memory):
                    for run in mapping.memory.runs:
                        self._give(mapping.memory, run.node, run.start - run.end)
                    self._named = {k: v for k, v in self._named.items() if v is not mapping.memory}

    def fail(self, pid: int, address: int, errnos: Sequence[int] = (), *, always: int = 0) -> None:
        """Let coming attempts to move the page at `address` end with these errnos, 0 meaning that
        one succeeds; after the last it moves. `always`: every attempt ends with this."""
        process = self._processes[pid]
        for mapping in process.mappings:
            if mapping.area.start <= address < mapping.area.end:
                memory = mapping.memory
                offset = (address - mapping.area.start) // memory.unit * memory.unit
                memory.script[offset] = list(errnos)
                if always:
                    memory.permanent[offset] = always
                else:
                    memory.permanent.pop(offset, None)
                return
        raise UsageError(f"process {pid} maps nothing at {address:#x}")

    def _map(self, area: SimulatedArea) -> _Mapping:
        unit = area.folio_size or area.page_size
        size = len(area.nodes) * unit
        memory = self._named.get(area.name)
        if memory is None:
            runs = (
                Run(start=index * unit, end=(index + 1) * unit, node=node)
                for index, node in enumerate(area.nodes)
                if node is not None
            )
            pool = area.page_size if area.kind is Kind.HUGE else 0
            memory = _Memory(unit, _joined(runs), pool)
            for run in memory.runs:
                if self._room(memory, run.node) < run.end - run.start:
                    raise UsageError(f"node {run.node} has no room for the area {area.start:#x}")
                self._give(memory, run.node, run.end - run.start)
            if area.name:
                self._named[area.name] = memory
        told = Area(
            start=area.start,
            end=area.start + size,
            kind=area.kind,
            page_size=area.page_size,
            residency={},
            path=area.path,
            policy=area.policy,
            is_shared=bool(area.name),
            object_key=("0:1", 1 + [*self._named].index(area.name), 0) if area.name else None,
        )
        return _Mapping(area=told, memory=memory)

    # -- the protocol ----------------------------------------------------------------------------

    def topology(self) -> Topology:
        with self.lock:
            return Topology(
                nodes={
                    number: replace(
                        node,
                        memory_free=self._free[number],
                        huge_pools=tuple(
                            replace(pool, free=self._pools[number, pool.size])
                            for pool in node.huge_pools
                        ),
                    )
                    for number, node in self._topology.nodes.items()
                }
            )

    def attach(self, pid: int) -> SimulatedTarget:
        with self.lock:
            if pid not in self._processes and self._root is not None:
                self._processes[pid] = self._read(pid, self._root)
            if pid not in self._processes:
                raise ProcessGoneError(f"no process {pid} on this host")
            if not self._processes[pid].permitted:
                raise from_errno(errno.EPERM, pid, "move_pages")
            return SimulatedTarget(self, self._processes[pid])

    def may_move_shared(self) -> bool:
        return self._may_move_shared

    def allowed_nodes(self) -> NodeSet:
        return self._allowed_nodes

    def cgroup_pids(self, path: str) -> Iterable[int]:
        wanted = path.strip("/")
        found = [
            pids
            for name, pids in self._cgroups.items()
            if name == wanted or name.startswith(f"{wanted}/")
        ]
        if found:
            return sorted(pid for pids in found for pid in pids if pid in self._processes)
        if self._root is not None:
            return cgroups.pids(cgroups.resolve_cgroup(path, self._root), self._root)
        raise UsageError(f"there is no cgroup {path!r}")

    def _read(self, pid: int, root: Path) -> _Process:
        """A process of the snapshot."""
        return _Process(
            pid=pid,
            command=processes.read_command(pid, root),
            mappings=[
                _Mapping(area=area, memory=self._laid_out(area))
                for area in processes.read_areas(pid, root)
            ],
            allowed_nodes=processes.read_status(pid, root).allowed_nodes,
        )

    def _laid_out(self, area: Area) -> _Memory:
        # Two processes may have touched different parts of one object: then their pages differ.
        name = repr((area.object_key, area.size, area.residency)) if area.is_shared else ""
        if name in self._named:
            return self._named[name]
        runs, position = [], 0
        for node, size in sorted(area.residency.items()):
            end = min(area.size, position + size)
            if position < end:
                runs.append(Run(start=position, end=end, node=node))
            position = end
        pool = area.page_size if area.kind is Kind.HUGE else 0
        memory = _Memory(area.page_size, runs, pool)
        if name:
            self._named[name] = memory
        return memory

    # -- moving ----------------------------------------------------------------------------------

    def _mappers(self, memory: _Memory) -> int:
        return sum(
            mapping.memory is memory
            for process in self._processes.values()
            for mapping in process.mappings
        )

    def told(self, mapping: _Mapping) -> Area:
        """The area as it is now."""
        mappers = max(mapping.area.most_mappers, self._mappers(mapping.memory))
        return replace(mapping.area, residency=mapping.residency(), most_mappers=mappers)

    def _room(self, memory: _Memory, node: int) -> int:
        if memory.pool:
            return self._pools.get((node, memory.pool), 0) * memory.pool
        return self._free.get(node, 0)

    def _give(self, memory: _Memory, node: int, size: int) -> None:
        """Take `size` bytes of a node for the memory; negative: give back."""
        if memory.pool:
            key = (node, memory.pool)
            self._pools[key] = self._pools.get(key, 0) - size // memory.pool
        elif node in self._free:
            self._free[node] -= size

    def move(  # one page list, as the kernel has it: its node, its way, what comes of it
        self, mapping: _Mapping, run: Run, node: int, *, shared: bool, tally: _Tally
    ) -> None:
        """Try to move a part of one run to `node`; failures are told by address."""
        memory, base = mapping.memory, mapping.area.start
        if not shared and self.told(mapping).most_mappers > 1:
            tally.fail(base + run.start, base + run.end, errno.EACCES, memory.unit)
            return
        for start, end, number in memory.attempts(run.start, run.end):
            if number:
                tally.fail(base + start, base + end, number, memory.unit)
                continue
            fits = min(end - start, self._room(memory, node) // memory.unit * memory.unit)
            if fits:
                memory.place(start, start + fits, node)
                self._give(memory, node, fits)
                self._give(memory, run.node, -fits)
                pair = (run.node, node)
                tally.moved[pair] = tally.moved.get(pair, 0) + fits
            if start + fits < end:
                tally.fail(base + start + fits, base + end, errno.ENOMEM, memory.unit)

    def begin(self, process: _Process) -> bool:
        """Count a call on the process; False: it exits within this one. ProcessGoneError."""
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

    def _fork(self, process: _Process) -> None:
        self._processes[process.child] = replace(
            process,
            pid=process.child,
            mappings=list(process.mappings),
            exit_after=None,
            fork_after=None,
        )
        for pids in self._cgroups.values():
            if process.pid in pids:
                pids.add(process.child)


class SimulatedTarget:
    """A process of a SimulatedBackend."""

    def __init__(self, backend: SimulatedBackend, process: _Process) -> None:
        self._backend = backend
        self._process = process

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def command(self) -> str:
        return self._process.command

    @property
    def skips_holes(self) -> bool:
        return True

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
            tally = _Tally()
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
            tally = _Tally()
            mapping = self._mapping(area)
            size = 0
            for run in self._runs(mapping, start, end):
                new = destinations.get(run.node, run.node)
                if new == run.node:
                    continue
                for part in _within(run, only, mapping):
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

    def locate(self, area: Area, start: int, end: int) -> Sequence[Run]:
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

    def close(self) -> None:
        """Nothing is held."""

    def __enter__(self) -> SimulatedTarget:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _begin_or_gone(self) -> None:
        if not self._backend.begin(self._process):
            self._backend.end_process(self.pid)
            raise ProcessGoneError(f"process {self.pid} has exited")

    def _mapping(self, area: Area) -> _Mapping:
        for mapping in self._process.mappings:
            if mapping.area.start <= area.start and area.end <= mapping.area.end:
                return mapping
        raise UsageError(f"process {self.pid} maps nothing at {area.start:#x}")

    def _runs(self, mapping: _Mapping, start: int, end: int) -> list[Run]:
        base = mapping.area.start
        return mapping.memory.within(start - base, end - base) if start < end else []

    def _check_destination(self, node: int) -> None:
        if node not in self._backend.topology().memory_nodes:
            raise from_errno(errno.ENODEV, self.pid, "move_pages")
        if node not in self._process.allowed_nodes:
            raise from_errno(errno.EACCES, self.pid, "move_pages")


def _within(run: Run, only: Extents | None, mapping: _Mapping) -> Iterator[Run]:
    """The parts of a run, by offset, whose pages lie whole within `only`, by address."""
    if only is None:
        yield run
        return
    base, unit = mapping.area.start, mapping.memory.unit
    for first, last in only:
        start = max(run.start, -(-(first - base) // unit) * unit)
        end = min(run.end, (last - base) // unit * unit)
        if start < end:
            yield replace(run, start=start, end=end)


def _joined(runs: Iterable[Run]) -> Iterator[Run]:
    """Neighbours on one node as one run."""
    last: Run | None = None
    for run in runs:
        if last and last.end == run.start and last.node == run.node:
            last = replace(last, end=run.end)
            continue
        if last:
            yield last
        last = run
    if last:
        yield last
