"""The backend in memory."""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from schedhook.backends.simulated.free_memory import FreeMemory
from schedhook.backends.simulated.layout import map_area, read_process
from schedhook.backends.simulated.machine import Machine
from schedhook.backends.simulated.memory import PAGE, Process, SeenMemory, SimulatedArea
from schedhook.backends.simulated.target import SimulatedTarget
from schedhook.host import cgroups
from schedhook.host.page_sizes import read_page_sizes
from schedhook.host.topology import Node, Topology, read_topology
from schedhook.roles.backend import Backend, PageSet
from schedhook.values.errors import ProcessGoneError, UsageError, from_errno
from schedhook.values.grants import Grant
from schedhook.values.page_sizes import PageSizes
from schedhook.values.sets import CpuSet, NodeSet
from schedhook.values.sizes import GIB

PAGE_SIZES = PageSizes(base=PAGE, folio=2 << 20, pools=(2 << 20, 1 << 30), default_pool=2 << 20)
"""As on x86-64."""


def four_nodes() -> Topology:
    """Return four nodes of 1 GiB, all of it free, with one processor each."""
    return Topology(
        nodes={
            number: Node(
                number=number,
                cpus=CpuSet({number}),
                memory_total=GIB,
                memory_free=GIB,
                distances={other: 10 if other == number else 20 for other in range(4)},
            )
            for number in range(4)
        }
    )


class SimulatedBackend(Backend):
    """Processes, nodes and cgroups in memory.

    Without `root` it starts empty, on `topology` (default: `four_nodes()`). With `root` it
    simulates the host whose files are there: its topology, and each process when it is first
    attached. numa_maps gives pages per node but not which pages, so they are laid out in ascending
    order of nodes. `page_sizes` are the simulated kernel's; by default those of x86-64, or with
    `root` of that host.
    """

    def __init__(
        self,
        root: Path | None = None,
        *,
        topology: Topology | None = None,
        may_move_shared: bool = True,
        allowed_nodes: NodeSet | None = None,
        grants: Sequence[Grant] = (),
        page_sizes: PageSizes | None = None,
    ) -> None:
        self._root = root
        self._grants = grants
        if topology is None:
            topology = four_nodes() if root is None else read_topology(root)
        self._machine = Machine(
            free=FreeMemory(topology),
            may_move_shared=may_move_shared,
            allowed_nodes=topology.memory_nodes if allowed_nodes is None else allowed_nodes,
            page_sizes=page_sizes or (PAGE_SIZES if root is None else read_page_sizes(root)),
        )

    # -- setting up ------------------------------------------------------------------------------

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
        """Start a process and allocate its memory. Raise UsageError if a node is full.

        `exit_after`: the process exits during that call (counted from 1) that reads, locates,
        migrates or sweeps its memory. `fork_after`: before that call it starts the process
        `child`, which shares all its pages and is in its cgroup. `permitted`: whether it may be
        attached to. `swapped`: bytes in swap. `memory_owner_pid`: the process in whose memory it
        runs; it then has no memory of its own.
        """
        machine, base = self._machine, self._machine.page_sizes.base
        if memory_owner_pid is None:
            mappings = [map_area(area, machine.named, machine.free, base) for area in areas]
        else:
            mappings = machine.processes[memory_owner_pid].mappings
        machine.processes[pid] = Process(
            pid=pid,
            command=command,
            mappings=mappings,
            allowed_nodes=machine.memory_nodes if allowed_nodes is None else allowed_nodes,
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
        self._machine.cgroups.setdefault(path.strip("/"), set()).update(pids)

    def pids(self) -> tuple[int, ...]:
        """Return all processes, ascending."""
        return tuple(sorted(self._machine.processes))

    def end_process(self, pid: int) -> None:
        """Let the process exit; free its memory unless another process maps it."""
        with self._machine.lock:
            self._machine.end_process(pid)

    def fail(self, pid: int, address: int, errnos: Sequence[int] = (), *, always: int = 0) -> None:
        """Let coming attempts to move the page at `address` end with these errnos.

        0 means that an attempt succeeds; after the last errno the page moves. `always`: every
        attempt ends with this errno.
        """
        memory, offset = self._machine.find_page(pid, address)
        memory.script[offset] = list(errnos)
        if always:
            memory.permanent[offset] = always
        else:
            memory.permanent.pop(offset, None)

    def hide(self, pid: int, address: int, attempts: int = sys.maxsize) -> None:
        """Hide the page at `address` from move_pages(2), but not from migrate_pages(2).

        After as many attempts to move it, it is no longer hidden. A caller that may not move
        shared pages may not see frames either, so that it does not know of the page.
        """
        memory, offset = self._machine.find_page(pid, address)
        memory.hidden[offset] = attempts

    # -- the role --------------------------------------------------------------------------------

    def grants(self, nodes: NodeSet) -> Sequence[Grant]:  # noqa: ARG002
        return self._grants

    def topology(self) -> Topology:
        with self._machine.lock:
            return self._machine.free.topology()

    def attach(self, pid: int) -> SimulatedTarget:
        machine = self._machine
        with machine.lock:
            if pid not in machine.processes and self._root is not None:
                machine.processes[pid] = read_process(pid, self._root, machine.named)
            if pid not in machine.processes:
                raise ProcessGoneError(f"no process {pid} on this host")
            if not machine.processes[pid].permitted:
                raise from_errno(errno.EPERM, pid, "move_pages")
            return SimulatedTarget(machine, machine.processes[pid])

    def may_move_shared(self) -> bool:
        return self._machine.may_move_shared

    def allowed_nodes(self) -> NodeSet:
        return self._machine.allowed_nodes

    @property
    def is_simulation(self) -> bool:
        return True

    def page_set(self) -> PageSet | None:
        # The files of a host do not tell which pages of two areas are the same.
        return SeenMemory() if self._root is None else None

    def cgroup_pids(self, path: str) -> Iterable[int]:
        wanted = path.strip("/")
        found = [
            pids
            for name, pids in self._machine.cgroups.items()
            if name == wanted or name.startswith(f"{wanted}/")
        ]
        if found:
            return sorted(pid for pids in found for pid in pids if pid in self._machine.processes)
        if self._root is not None:
            return cgroups.pids(cgroups.resolve_cgroup(path, self._root), self._root)
        raise UsageError(f"there is no cgroup {path!r}")
