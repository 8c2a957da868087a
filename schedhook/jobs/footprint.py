"""Footprints: the memory of processes or of a job, held against where their processors are.

Memory is *off-node* where it lies on none of the nodes of the processors that use it and a
relocation could bring it there. Files that others map too (the C library) are not counted as that:
`relocate` leaves them alone as well. Sizes are bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schedhook.host.processes import (
    Status,
    read_areas,
    read_command,
    read_status,
    read_threads_cpus,
)
from schedhook.host.topology import Topology
from schedhook.jobs.lookup import scheduler_names
from schedhook.migration.selection import Selection, select
from schedhook.plugins.manager import Plugins
from schedhook.roles.scheduler import Scheduler, Task
from schedhook.values.errors import (
    PLUGIN_ERRORS,
    NoPermissionError,
    ProcessGoneError,
    SchedhookError,
)
from schedhook.values.model import Area, MemoryKind, Placement, Residency, add_residency, by_name
from schedhook.values.sets import CpuSet, NodeSet

_ObjectKey = tuple[str, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessFootprint:
    """One process. Memory that it shares counts in full."""

    pid: int
    command: str
    cpus: CpuSet
    """Of its first thread."""
    allowed_nodes: NodeSet
    placement: Placement
    """Its task's; where there are no tasks, of all its threads."""
    residency: Residency
    kinds: Mapping[MemoryKind, Residency]
    off_node: Residency

    def to_dict(self) -> dict[str, Any]:
        """An entry of `processes` in `show --json`."""
        return {
            "pid": self.pid,
            "command": self.command,
            "cpus": str(self.cpus),
            "mems": str(self.allowed_nodes),
            "nodes": str(self.placement.nodes),
            "residency": by_name(self.residency),
            "kinds": _named_kinds(self.kinds),
            "off_node": by_name(self.off_node),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """Several processes together, or a job on this host. A shared object counts once."""

    placement: Placement
    processes: tuple[ProcessFootprint, ...]
    residency: Residency
    kinds: Mapping[MemoryKind, Residency]
    off_node: Residency
    scheduler: str | None = None
    job: str | None = None
    unreadable: int = 0
    """Processes that the caller may not look into."""

    @property
    def bytes_off_node(self) -> int:
        return sum(self.off_node.values())

    def to_dict(self) -> dict[str, Any]:
        """What `show --json` has about it."""
        return {
            "scheduler": self.scheduler,
            "job": self.job,
            "placement": {"cpus": str(self.placement.cpus), "nodes": str(self.placement.nodes)},
            "bytes": sum(self.residency.values()),
            "bytes_off_node": self.bytes_off_node,
            "residency": by_name(self.residency),
            "kinds": _named_kinds(self.kinds),
            "off_node": by_name(self.off_node),
            "unreadable": self.unreadable,
            "processes": [process.to_dict() for process in self.processes],
        }


def read_footprint(
    tasks: Iterable[Task],
    root: Path = Path("/"),
    *,
    passing_over: tuple[type[SchedhookError], ...] = (ProcessGoneError,),
    scheduler: str | None = None,
    job: str | None = None,
) -> Footprint:
    """Read where the memory of the tasks' processes lies; this walks their page tables.

    `passing_over` are the errors that only leave a process out.
    """
    read: list[tuple[Task, int, str, Status]] = []
    areas: dict[int, Sequence[Area]] = {}
    cpus, nodes, unreadable = CpuSet(), NodeSet(), 0
    for task in tasks:
        cpus, nodes = cpus | task.placement.cpus, nodes | task.placement.nodes
        for pid in task.pids:
            try:
                read_one = (task, pid, read_command(pid, root), read_status(pid, root))
                areas[pid] = read_areas(pid, root)
            except passing_over as error:
                unreadable += isinstance(error, NoPermissionError)
            else:
                read.append(read_one)
    movable = _movable(areas)
    homes = {pid: task.placement.nodes for task, pid, _, _ in read}

    def off_node(of: Iterable[tuple[int, Area]]) -> dict[int, int]:
        return _sum(
            {
                node: size
                for node, size in area.residency.items()
                if node not in (nodes if area.is_shared else homes[pid])
            }
            for pid, area in of
            if (pid, area.start) in movable
        )

    once = list(_once(areas))
    return Footprint(
        placement=Placement(cpus=cpus, nodes=nodes),
        processes=tuple(
            ProcessFootprint(
                pid=pid,
                command=command,
                cpus=status.allowed_cpus,
                allowed_nodes=status.allowed_nodes,
                placement=task.placement,
                residency=_sum(area.residency for area in areas[pid]),
                kinds=_by_kind(areas[pid]),
                off_node=off_node((pid, area) for area in areas[pid]),
            )
            for task, pid, command, status in read
        ),
        residency=_sum(area.residency for _, area in once),
        kinds=_by_kind(area for _, area in once),
        off_node=off_node(once),
        scheduler=scheduler,
        job=job,
        unreadable=unreadable,
    )


def tasks_of(
    pids: Iterable[int],
    topology: Topology,
    root: Path = Path("/"),
    *,
    passing_over: tuple[type[SchedhookError], ...] = (ProcessGoneError,),
) -> Iterator[Task]:
    """Each process as a task of its own, placed where its threads may run."""
    for pid in pids:
        with suppress(*passing_over):
            cpus = read_threads_cpus(pid, root)
            placement = Placement(cpus=cpus, nodes=topology.memory_nodes_of(cpus))
            yield Task(name=str(pid), pids=(pid,), placement=placement)


def read_jobs(
    plugins: Plugins, root: Path = Path("/"), *, scheduler: str | None = None
) -> tuple[list[Footprint], list[str]]:
    """(every job on this host, most off-node bytes first; lines about what could not be read)."""
    found: list[Footprint] = []
    problems: list[str] = []
    for name in scheduler_names(plugins, scheduler):
        try:
            adapter = plugins.scheduler(name).create(root)
            jobs = (read_job(adapter, job, root) for job in adapter.jobs())
            found += [each for each in jobs if each is not None]
        except PLUGIN_ERRORS as error:  # an adapter is a plug-in
            if scheduler and isinstance(error, SchedhookError):
                raise
            problems.append(f"{name}: {type(error).__name__}: {' '.join(str(error).split())}")
    found.sort(key=lambda each: (-each.bytes_off_node, each.scheduler or "", each.job or ""))
    return found, problems


def read_job(adapter: Scheduler, job: str, root: Path = Path("/")) -> Footprint | None:
    """A job's footprint; None where it has no task here. Processes that the caller may not look
    into are counted and left out."""
    tasks = adapter.tasks(job)
    if not tasks:
        return None
    return read_footprint(
        tasks,
        root,
        passing_over=(ProcessGoneError, NoPermissionError),
        scheduler=adapter.name,
        job=job,
    )


def _movable(areas: Mapping[int, Sequence[Area]]) -> set[tuple[int, int]]:
    """(process, start) of the areas that a relocation would take along by default."""
    everywhere = NodeSet(_sum(area.residency for its in areas.values() for area in its))
    chosen = select(areas, everywhere, Selection())
    return {(pid, item.area.start) for pid, its in chosen.items() for item in its.selected}


def _once(areas: Mapping[int, Sequence[Area]]) -> Iterator[tuple[int, Area]]:
    """(process, area) without repeating what is shared: each shared object in the area that has
    most of it."""
    largest: dict[_ObjectKey, tuple[int, Area]] = {}
    for pid, its in areas.items():
        for area in its:
            key = area.object_key
            if key is None or not (area.is_shared or area.most_mappers > 1):
                yield pid, area
            elif key not in largest or largest[key][1].resident < area.resident:
                largest[key] = pid, area
    yield from largest.values()


def _by_kind(areas: Iterable[Area]) -> dict[MemoryKind, dict[int, int]]:
    kinds: dict[MemoryKind, dict[int, int]] = {}
    for area in areas:
        add_residency(kinds.setdefault(area.kind, {}), area.residency)
    return kinds


def _named_kinds(kinds: Mapping[MemoryKind, Residency]) -> dict[str, dict[str, int]]:
    return {kind.value: by_name(size) for kind, size in sorted(kinds.items())}


def _sum(parts: Iterable[Residency]) -> dict[int, int]:
    total: dict[int, int] = {}
    for part in parts:
        add_residency(total, part)
    return total
