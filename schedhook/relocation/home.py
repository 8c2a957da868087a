"""The way home: off-node memory goes to the nodes of the processors that use it.

If all processes have the same way, it is a node map like any other. Otherwise each page goes the
way of the processes that map it; memory that they share may stay on the nodes of any of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace

from schedhook.host.locality import off_nodes
from schedhook.host.topology import Topology
from schedhook.jobs.footprint import tasks_of
from schedhook.jobs.lookup import find_tasks
from schedhook.migration.processes import MovingProcess
from schedhook.plugins.descriptors import StrategyPlugin
from schedhook.relocation.context import Context
from schedhook.relocation.nodes import Route, ask_mapper
from schedhook.relocation.notes import BY_PAGE
from schedhook.roles.scheduler import Task
from schedhook.roles.strategy import Choice, Pages
from schedhook.values.errors import ProcessGoneError
from schedhook.values.model import MemoryKind, NodeMap, Placement
from schedhook.values.sets import NodeSet

AT_HOME = "no memory is off-node"
DIFFERENT = (
    "the processes have different nodes: each page goes to those of the processes that map it"
)


@dataclass(frozen=True, slots=True)
class Way:
    """Where memory must not be, and where it belongs."""

    strays: NodeSet
    """The nodes on which it is off-node."""
    homes: NodeSet


def find_way_home(context: Context, topology: Topology) -> tuple[Context, Route]:
    """Return the route of a request to bring memory home, and the context to go on with.

    If processes have different ways, that context has a strategy that chooses nodes page by page.
    """
    ways = _find_ways(context, topology)
    different = set(ways.values())
    if not any(way.strays for way in different):
        context.notes.append(AT_HOME)
        return context, Route(node_map=NodeMap(pairs={}), sources=NodeSet(), destinations=NodeSet())
    maps = _Maps(context, topology)
    if len(different) == 1:
        (way,) = different
        node_map = maps.of(way)
        return context, Route(node_map=node_map, sources=way.strays, destinations=way.homes)
    named = context.settings.request.strategy
    context.notes.append(f"{DIFFERENT}, not by strategy {named}" if named else DIFFERENT)
    choice = _HomeChoice(ways, maps)
    strategy = StrategyPlugin(
        name="home", summary="off-node memory to its nodes", choose_nodes=lambda _: choice.choose
    )
    return (
        replace(context, settings=replace(context.settings, strategy=strategy)),
        Route(
            node_map=NodeMap(pairs={}, mapper=BY_PAGE),
            sources=NodeSet(node for way in different for node in way.strays),
            destinations=NodeSet(node for way in different for node in way.homes),
        ),
    )


def _find_ways(context: Context, topology: Topology) -> dict[int, Way]:
    """Return the way of each process; of a job's, also of those that the request leaves out."""
    held = {process.pid: process for process in context.members.processes}
    wanted = context.settings.request.sources
    ways = {}
    for task in _tasks(context, topology):
        homes = topology.preferred(task.placement.nodes)
        for pid in task.pids:
            strays = _strays(topology, task.placement, held.get(pid))
            ways[pid] = Way(strays if wanted is None else strays & wanted, homes)
    nowhere = Way(NodeSet(), NodeSet())
    return dict.fromkeys(held, nowhere) | ways


def _tasks(context: Context, topology: Topology) -> Iterable[Task]:
    request = context.settings.request
    if request.job is not None:
        return find_tasks(context.plugins, request.job, request.scheduler, context.root)[1]
    pids = [process.pid for process in context.members.processes]
    return tasks_of(pids, topology, context.root)


def _strays(topology: Topology, placement: Placement, process: MovingProcess | None) -> NodeSet:
    strays = off_nodes(topology, placement)
    if process is None or not strays & topology.memory_only_nodes:
        return strays
    # Only now, because it walks the process's page tables.
    with suppress(ProcessGoneError):
        policies = [area.policy for area in process.target.areas()]
        return off_nodes(topology, placement, policies)
    return NodeSet()


@dataclass(slots=True)
class _Maps:
    """The node map of each way, made once by the request's mapper or by `nearest`."""

    context: Context
    topology: Topology
    known: dict[Way, NodeMap] = field(default_factory=dict)

    def of(self, way: Way) -> NodeMap:
        if way not in self.known:
            request, plugins = self.context.settings.request, self.context.plugins
            self.known[way] = ask_mapper(
                request.mapper or "nearest", plugins, way.strays, way.homes, self.topology
            )
        return self.known[way]


@dataclass(slots=True)
class _HomeChoice:
    """Chooses the node of each page by the ways of the processes that map it."""

    ways: Mapping[int, Way]
    maps: _Maps

    def choose(self, pages: Pages) -> Choice:
        way = self._way(pages)
        return self.maps.of(way).pairs[pages.node] if pages.node in way.strays else None

    def _way(self, pages: Pages) -> Way:
        mine = self.ways.get(pages.pid, Way(NodeSet(), NodeSet()))
        if pages.kind is not MemoryKind.SHMEM and not pages.aliases:
            return mine
        placed = [way for way in self.ways.values() if way.homes]
        strays = mine.strays.intersection(*(way.strays for way in placed))
        homes = NodeSet(node for way in placed for node in way.homes)
        return Way(NodeSet(strays) - homes, homes)
