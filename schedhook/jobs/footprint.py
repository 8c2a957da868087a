"""Footprints: where the memory of processes or of a job lies, compared with the CPUs that use it.

Memory is *off-node* if it is on none of the nodes of the CPUs that use it and a relocation could
bring it there; schedhook.host.locality says which nodes those are. Files that other processes map
too (the C library) do not count: `relocate` leaves them alone as well. Sizes are bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from schedhook.host.locality import off_nodes
from schedhook.host.policies import read_thread_policies
from schedhook.host.processes import (
    Status,
    read_areas,
    read_command,
    read_status,
    read_threads_cpus,
)
from schedhook.host.topology import Topology, read_topology
from schedhook.jobs.census import select_all
from schedhook.jobs.lookup import scheduler_names
from schedhook.jobs.summary import JobSummary, summarise
from schedhook.migration.policies import ProcessPolicies, collect_policies, count_policies
from schedhook.migration.selection import ProcessSelection
from schedhook.plugins.manager import Plugins
from schedhook.roles.scheduler import Scheduler, Task
from schedhook.values.errors import (
    PLUGIN_ERRORS,
    NoPermissionError,
    NotAnsweringError,
    ProcessGoneError,
    SchedhookError,
)
from schedhook.values.model import Area, MemoryKind, Placement, Residency
from schedhook.values.policy import PolicyCount
from schedhook.values.report_json import by_name
from schedhook.values.sets import CpuSet, NodeSet
from schedhook.values.sizes import add_sizes, sum_sizes
from schedhook.values.text import describe_error


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessFootprint:
    """The memory of one process, each page once. What it shares with others counts in full."""

    pid: int
    command: str
    cpus: CpuSet
    """The CPUs that its first thread may run on."""
    allowed_nodes: NodeSet
    """The nodes that its cpuset allows."""
    placement: Placement
    """Its task's placement; without tasks, the placement of all its threads."""
    local_nodes: NodeSet
    """The nodes on which its memory is not off-node."""
    residency: Residency
    kinds: Mapping[MemoryKind, Residency]
    off_node: Residency
    off_node_policies: ProcessPolicies
    """The memory policies that name a node on which memory is off-node."""

    def to_dict(self) -> dict[str, Any]:
        """Return an entry of `processes` in `show --json`."""
        return {
            "pid": self.pid,
            "command": self.command,
            "cpus": str(self.cpus),
            "mems": str(self.allowed_nodes),
            "nodes": str(self.placement.nodes),
            "local": str(self.local_nodes),
            "residency": by_name(self.residency),
            "kinds": _named_kinds(self.kinds),
            "off_node": by_name(self.off_node),
            "off_node_policies": self.off_node_policies.to_list(),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """The memory of several processes, or of a job on this host, each page once."""

    placement: Placement
    processes: tuple[ProcessFootprint, ...]
    residency: Residency
    kinds: Mapping[MemoryKind, Residency]
    off_node: Residency
    scheduler: str | None = None
    job: str | None = None
    summary: JobSummary = field(default_factory=JobSummary)
    """Of the job."""
    unreadable: int = 0
    """Processes that the caller may not read."""
    not_answering: tuple[int, ...] = ()
    """Processes that keep the lock of their memory, so that it cannot be read."""
    is_exact: bool = True
    """Whether each page counts once; else the sizes are upper bounds."""

    @property
    def off_node_policies(self) -> PolicyCount:
        """What is governed by memory policies that name nodes on which memory is off-node."""
        return count_policies(each.off_node_policies for each in self.processes)

    @property
    def bytes_off_node(self) -> int:
        return sum(self.off_node.values())

    def to_dict(self) -> dict[str, Any]:
        """Return the object that `show --json` prints."""
        return {
            "scheduler": self.scheduler,
            "job": self.job,
            **self.summary.to_dict(),
            "placement": {"cpus": str(self.placement.cpus), "nodes": str(self.placement.nodes)},
            "local": str(NodeSet(node for each in self.processes for node in each.local_nodes)),
            "bytes": sum(self.residency.values()),
            "bytes_off_node": self.bytes_off_node,
            "residency": by_name(self.residency),
            "kinds": _named_kinds(self.kinds),
            "off_node": by_name(self.off_node),
            "off_node_policies": self.off_node_policies.to_dict(),
            "unreadable": self.unreadable,
            "not_answering": list(self.not_answering),
            "exact": self.is_exact,
            "processes": [process.to_dict() for process in self.processes],
        }


def read_footprint(
    tasks: Iterable[Task],
    root: Path = Path("/"),
    *,
    skip_errors: tuple[type[SchedhookError], ...] = (ProcessGoneError,),
    scheduler: str | None = None,
    job: str | None = None,
    topology: Topology | None = None,
) -> Footprint:
    """Read where the memory of the tasks' processes lies; this walks their page tables.

    A process whose reading raises one of `skip_errors` is left out, as is one that does not answer.
    `topology` is that of the host if the caller has read it.
    """
    tasks = tuple(tasks)
    left_out = _LeftOut()
    readings = _read_processes(tasks, root, skip_errors, left_out)
    placement = _union(task.placement for task in tasks)
    topology = topology or read_topology(root)
    strays = {
        each.pid: off_nodes(topology, each.task.placement, (area.policy for area in each.areas))
        for each in readings
    }
    homes = _Homes(strays=strays, strays_of_all=_common(strays.values()) - placement.nodes)
    selections, is_exact = select_all({each.pid: each.areas for each in readings}, root)
    items = [item for each in selections.values() for item in each.all_items]
    return Footprint(
        placement=placement,
        processes=tuple(
            _process_footprint(each, selections[each.pid], homes, topology.memory_nodes)
            for each in readings
        ),
        residency=sum_sizes(item.counted for item in items),
        kinds=_by_kind((item.area, item.counted) for item in items),
        off_node=sum_sizes(
            homes.off_node(pid, item.area, item.counted)
            for pid, each in selections.items()
            for item in each.selected
        ),
        scheduler=scheduler,
        job=job,
        unreadable=left_out.unreadable,
        not_answering=tuple(left_out.not_answering),
        is_exact=is_exact,
    )


def tasks_of(
    pids: Iterable[int],
    topology: Topology,
    root: Path = Path("/"),
    *,
    skip_errors: tuple[type[SchedhookError], ...] = (ProcessGoneError,),
) -> Iterator[Task]:
    """Yield each process as a task of its own, placed where its threads may run."""
    for pid in pids:
        with suppress(*skip_errors):
            cpus = read_threads_cpus(pid, root)
            placement = Placement(cpus=cpus, nodes=topology.memory_nodes_of(cpus))
            yield Task(name=str(pid), pids=(pid,), placement=placement)


def read_jobs(
    plugins: Plugins,
    root: Path = Path("/"),
    *,
    scheduler: str | None = None,
    user: int | None = None,
) -> tuple[list[Footprint], list[str]]:
    """Return the footprints of all jobs on this host, and a line for each adapter that failed.

    With `scheduler`, only its jobs are read; raise SchedhookError if that fails. With `user`, only
    that user's jobs are read. See `schedhook.jobs.order` for their order.
    """
    found: list[Footprint] = []
    problems: list[str] = []
    topology = read_topology(root)
    for name in scheduler_names(plugins, scheduler):
        try:
            adapter = plugins.adapter(name, root)
            jobs = (
                read_job(adapter, job, root, topology)
                for job in adapter.jobs()
                if user is None or adapter.owner(job) == user
            )
            found += [
                replace(each, summary=summarise(adapter, each.job or ""))
                for each in jobs
                if each is not None
            ]
        except PLUGIN_ERRORS as error:  # an adapter is a plug-in
            if scheduler and isinstance(error, SchedhookError):
                raise
            problems.append(f"{name}: {describe_error(error)}")
    return found, problems


def read_job(
    adapter: Scheduler, job: str, root: Path = Path("/"), topology: Topology | None = None
) -> Footprint | None:
    """Return a job's footprint, None if it has no task on this host.

    Processes that the caller may not read are counted and left out.
    """
    tasks = adapter.tasks(job)
    if not tasks:
        return None
    return read_footprint(
        tasks,
        root,
        skip_errors=(ProcessGoneError, NoPermissionError),
        scheduler=adapter.name,
        job=job,
        topology=topology,
    )


@dataclass(frozen=True, slots=True)
class _Reading:
    """What was read of one process."""

    task: Task
    pid: int
    command: str
    status: Status
    areas: Sequence[Area]
    policies: ProcessPolicies


@dataclass(frozen=True, slots=True, kw_only=True)
class _Homes:
    """Which memory is where it belongs."""

    strays: Mapping[int, NodeSet]
    """The nodes on which memory of each process is off-node."""
    strays_of_all: NodeSet
    """Those on which it is off-node for all: memory that tasks share may be on any one's nodes."""

    def off_node(self, pid: int, area: Area, residency: Residency) -> dict[int, int]:
        """Return the off-node bytes, by node, of a part of an area of a process."""
        strays = self.strays_of_all if area.is_shared else self.strays[pid]
        return {node: size for node, size in residency.items() if node in strays}


@dataclass(slots=True)
class _LeftOut:
    """The processes that could not be read."""

    unreadable: int = 0
    not_answering: list[int] = field(default_factory=list)


def _read_processes(
    tasks: Iterable[Task], root: Path, skip: tuple[type[SchedhookError], ...], left_out: _LeftOut
) -> list[_Reading]:
    """Return what was read of the tasks' processes, and count in `left_out` what was not."""
    readings: list[_Reading] = []
    for task in tasks:
        for pid in task.pids:
            try:
                command, status = read_command(pid, root), read_status(pid, root)
                areas = read_areas(pid, root)
                policies = collect_policies(areas, read_thread_policies(pid, areas, root))
                readings.append(_Reading(task, pid, command, status, areas, policies))
            except NotAnsweringError:
                left_out.not_answering.append(pid)
            except skip as error:
                left_out.unreadable += isinstance(error, NoPermissionError)
    return readings


def _process_footprint(
    reading: _Reading, selection: ProcessSelection, homes: _Homes, nodes: NodeSet
) -> ProcessFootprint:
    pid = reading.pid
    return ProcessFootprint(
        pid=reading.pid,
        command=reading.command,
        cpus=reading.status.allowed_cpus,
        allowed_nodes=reading.status.allowed_nodes,
        placement=reading.task.placement,
        local_nodes=nodes - homes.strays[pid],
        residency=selection.residency,
        kinds=_by_kind((item.area, item.here) for item in selection.all_items),
        off_node=sum_sizes(
            homes.off_node(pid, item.area, item.here) for item in selection.selected
        ),
        off_node_policies=reading.policies.only(
            lambda policy, _: bool(policy.nodes & homes.strays[pid])
        ),
    )


def _union(placements: Iterable[Placement]) -> Placement:
    cpus, nodes = CpuSet(), NodeSet()
    for each in placements:
        cpus, nodes = cpus | each.cpus, nodes | each.nodes
    return Placement(cpus=cpus, nodes=nodes)


def _common(sets: Iterable[NodeSet]) -> NodeSet:
    """Return the nodes that are in every set."""
    first, *rest = [*sets] or [NodeSet()]
    return NodeSet(first.intersection(*rest))


def _by_kind(parts: Iterable[tuple[Area, Residency]]) -> dict[MemoryKind, dict[int, int]]:
    kinds: dict[MemoryKind, dict[int, int]] = {}
    for area, residency in parts:
        add_sizes(kinds.setdefault(area.kind, {}), residency)
    return {kind: sizes for kind, sizes in kinds.items() if sizes}


def _named_kinds(kinds: Mapping[MemoryKind, Residency]) -> dict[str, dict[str, int]]:
    return {kind.value: by_name(size) for kind, size in sorted(kinds.items())}
