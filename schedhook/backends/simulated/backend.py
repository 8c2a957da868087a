"""Simulated processes, nodes and cgroups, and what they ask of each other."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from schedhook.backends.simulated.memory import (
    Mapped,
    Memory,
    Process,
    SimulatedArea,
    Tally,
    joined,
)
from schedhook.backends.simulated.target import SimulatedTarget
from schedhook.host import cgroups, processes
from schedhook.host.topology import Node, Topology, read_topology
from schedhook.roles.backend import Backend, PageRun
from schedhook.values.errors import ProcessGoneError, UsageError, from_errno
from schedhook.values.model import Area, MemoryKind
from schedhook.values.sets import CpuSet, NodeSet

_GIB = 1 << 30


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


class SimulatedBackend(Backend):
    """Processes, nodes and cgroups in memory.

    Without `root` it starts empty, on `topology` (default: `four_nodes()`). With `root` it stands
    for the host whose files lie there: its topology, and each process as it is first attached;
    numa_maps tells pages per node and not which, so they are laid out in ascending order of nodes.
    """

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
        self._processes: dict[int, Process] = {}
        self._named: dict[str, Memory] = {}
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
        swapped: int = 0,
        exit_after: int | None = None,
        fork_after: int | None = None,
        child: int = 0,
        memory_owner_pid: int | None = None,
    ) -> None:
        """Start a process; its memory is taken from its nodes. UsageError where that is not free.

        `exit_after`: it exits within that call (counted from 1) that reads, locates, migrates or
        sweeps its memory. `fork_after`: before that call it starts the process `child`, which
        shares all its pages and is in its cgroup. `permitted`: whether it may be attached to.
        `swapped`: bytes in swap. `memory_owner_pid`: the process in whose memory it
        runs, having none.
        """
        allowed = self._topology.memory_nodes if allowed_nodes is None else allowed_nodes
        self._processes[pid] = Process(
            pid=pid,
            command=command,
            mappings=[self._map(area) for area in areas]
            if memory_owner_pid is None
            else self._processes[memory_owner_pid].mappings,
            allowed_nodes=allowed,
            permitted=permitted,
            swapped=swapped,
            exit_after=exit_after,
            fork_after=fork_after,
            child=child,
            memory_owner_pid=memory_owner_pid,
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
        memory, offset = self._page(pid, address)
        memory.script[offset] = list(errnos)
        if always:
            memory.permanent[offset] = always
        else:
            memory.permanent.pop(offset, None)

    def hide(self, pid: int, address: int) -> None:
        """Let move_pages(2) not find the page at `address`, which migrate_pages(2) moves."""
        memory, offset = self._page(pid, address)
        memory.hidden.add(offset)

    def _page(self, pid: int, address: int) -> tuple[Memory, int]:
        for mapping in self._processes[pid].mappings:
            if mapping.area.start <= address < mapping.area.end:
                unit = mapping.memory.unit
                return mapping.memory, (address - mapping.area.start) // unit * unit
        raise UsageError(f"process {pid} maps nothing at {address:#x}")

    def _map(self, area: SimulatedArea) -> Mapped:
        unit = area.folio_size or area.page_size
        size = len(area.nodes) * unit
        memory = self._named.get(area.name)
        if memory is None:
            runs = (
                PageRun(start=index * unit, end=(index + 1) * unit, node=node)
                for index, node in enumerate(area.nodes)
                if node is not None
            )
            pool = area.page_size if area.kind is MemoryKind.HUGE else 0
            memory = Memory(unit, joined(runs), pool)
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
        return Mapped(area=told, memory=memory)

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

    def _read(self, pid: int, root: Path) -> Process:
        """A process of the snapshot."""
        return Process(
            pid=pid,
            command=processes.read_command(pid, root),
            mappings=[
                Mapped(area=area, memory=self._laid_out(area))
                for area in processes.read_areas(pid, root)
            ],
            allowed_nodes=processes.read_status(pid, root).allowed_nodes,
        )

    def _laid_out(self, area: Area) -> Memory:
        # Two processes may have touched different parts of one object: then their pages differ.
        name = repr((area.object_key, area.size, area.residency)) if area.is_shared else ""
        if name in self._named:
            return self._named[name]
        runs, position = [], 0
        for node, size in sorted(area.residency.items()):
            end = min(area.size, position + size)
            if position < end:
                runs.append(PageRun(start=position, end=end, node=node))
            position = end
        pool = area.page_size if area.kind is MemoryKind.HUGE else 0
        memory = Memory(area.page_size, runs, pool)
        if name:
            self._named[name] = memory
        return memory

    # -- moving ----------------------------------------------------------------------------------

    def _mappers(self, memory: Memory) -> int:
        address_spaces = {id(each.mappings): each.mappings for each in self._processes.values()}
        return sum(
            mapping.memory is memory for mappings in address_spaces.values() for mapping in mappings
        )

    def told(self, mapping: Mapped) -> Area:
        """The area as it is now."""
        mappers = max(mapping.area.most_mappers, self._mappers(mapping.memory))
        return replace(mapping.area, residency=mapping.residency(), most_mappers=mappers)

    def _room(self, memory: Memory, node: int) -> int:
        if memory.pool:
            return self._pools.get((node, memory.pool), 0) * memory.pool
        return self._free.get(node, 0)

    def _give(self, memory: Memory, node: int, size: int) -> None:
        """Take `size` bytes of a node for the memory; negative: give back."""
        if memory.pool:
            key = (node, memory.pool)
            self._pools[key] = self._pools.get(key, 0) - size // memory.pool
        elif node in self._free:
            self._free[node] -= size

    def move(  # one page list, as the kernel has it: its node, its way, what comes of it
        self, mapping: Mapped, run: PageRun, node: int, *, shared: bool, tally: Tally
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

    def begin(self, process: Process) -> bool:
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

    def _fork(self, process: Process) -> None:
        self._processes[process.child] = replace(
            process,
            pid=process.child,
            mappings=list(process.mappings),
            exit_after=None,
            fork_after=None,
            memory_owner_pid=None,
        )
        for pids in self._cgroups.values():
            if process.pid in pids:
                pids.add(process.child)
