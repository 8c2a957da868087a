"""Lay out the pages of a simulated process: as a test asks, or as on a snapshot of a host."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from schedhook.backends.simulated.free_memory import FreeMemory
from schedhook.backends.simulated.memory import Mapped, Memory, Process, SimulatedArea, joined
from schedhook.host import processes
from schedhook.roles.backend import PageRun
from schedhook.values.errors import UsageError
from schedhook.values.model import Area, MemoryKind
from schedhook.values.objects import ObjectId


def map_area(area: SimulatedArea, named: dict[str, Memory], free: FreeMemory, base: int) -> Mapped:
    """Allocate the area's memory, or share that of the same name; new names go into `named`.

    `base` is the size of a base page in bytes.
    Raise UsageError if a node does not have enough free memory.
    """
    page_size = area.page_size or base
    unit = area.folio_size or page_size
    memory = named.get(area.name)
    if memory is None:
        memory = _allocate(area, unit, free)
        if area.name:
            named[area.name] = memory
    mapped = Area(
        start=area.start,
        end=area.start + len(area.nodes) * unit,
        kind=area.kind,
        page_size=page_size,
        residency={},
        path=area.path,
        policy=area.policy,
        is_shared=bool(area.name),
        object_id=ObjectId("0:1", 1 + [*named].index(area.name)) if area.name else None,
    )
    return Mapped(area=mapped, memory=memory)


def read_process(pid: int, root: Path, named: dict[str, Memory]) -> Process:
    """Return a process of the host whose files are in `root`.

    numa_maps gives pages per node but not which pages, so they are laid out in ascending order of
    nodes. Memory that processes share goes into `named`.
    """
    return Process(
        pid=pid,
        command=processes.read_command(pid, root),
        mappings=[
            Mapped(area=area, memory=_lay_out(area, named))
            for area in processes.read_areas(pid, root)
        ],
        allowed_nodes=processes.read_status(pid, root).allowed_nodes,
    )


def _fill(area: Area) -> Iterator[PageRun]:
    """Yield the runs of the area's pages, by offset, where it is mapped."""
    sizes = dict(sorted(area.residency.items()))
    for first, last in area.ranges:
        start = first - area.start
        while sizes and start < last - area.start:
            node = next(iter(sizes))
            end = start + min(sizes[node], last - area.start - start)
            yield PageRun(start=start, end=end, node=node)
            sizes[node] -= end - start
            if not sizes[node]:
                del sizes[node]
            start = end


def _allocate(area: SimulatedArea, unit: int, free: FreeMemory) -> Memory:
    runs = (
        PageRun(start=index * unit, end=(index + 1) * unit, node=node)
        for index, node in enumerate(area.nodes)
        if node is not None
    )
    pool = unit if area.kind is MemoryKind.HUGE else 0
    memory = Memory(unit, joined(runs), pool)
    for run in memory.runs:
        if free.room(memory, run.node) < run.end - run.start:
            raise UsageError(f"node {run.node} has no room for the area {area.start:#x}")
        free.take(memory, run.node, run.end - run.start)
    return memory


def _lay_out(area: Area, named: dict[str, Memory]) -> Memory:
    # Two processes may have touched different parts of one object: then their pages differ.
    name = repr((area.object_id, area.offset, area.size, area.residency)) if area.is_shared else ""
    if name in named:
        return named[name]
    pool = area.page_size if area.kind is MemoryKind.HUGE else 0
    memory = Memory(area.page_size, joined(_fill(area)), pool)
    if name:
        named[name] = memory
    return memory
