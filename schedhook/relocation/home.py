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
from schedhook.roles.strategy import Choice, PageChoice, Pages
from schedhook.values.errors import ProcessGoneError, RefusedError
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


NOWHERE = Way(NodeSet(), NodeSet())


def find_way_home(context: Context, topology: Topology) -> tuple[Context, Route]:
    """Return the route of a request to bring memory home, and the context to go on with.

    If processes have different ways, that context has a strategy that chooses nodes page by page.
    """
    home = WaysHome.find(context, topology)
    different = set(home.ways.values())
    if not any(way.strays for way in different):
        context.notes.append(AT_HOME)
        return context, Route(node_map=NodeMap(pairs={}), sources=NodeSet(), destinations=NodeSet())
    if len(different) == 1:
        (way,) = different
        node_map = home.map_of(way)
        return context, Route(node_map=node_map, sources=way.strays, destinations=way.homes)
    named = context.settings.request.strategy
    context.notes.append(f"{DIFFERENT}, not by strategy {named}" if named else DIFFERENT)
    return choosing(context, home.choose), home.route()


def choosing(context: Context, choose: PageChoice) -> Context:
    """Return the context with a strategy that sends each page where `choose` says."""
    strategy = StrategyPlugin(
        name="home", summary="off-node memory to its nodes", choose_nodes=lambda _: choose
    )
    return replace(context, settings=replace(context.settings, strategy=strategy))


@dataclass(slots=True)
class WaysHome:
    """The way of each process of a request, and the choice of a node for each page by them."""

    ways: Mapping[int, Way]
    """By pid."""
    context: Context
    topology: Topology
    maps: dict[Way, NodeMap] = field(default_factory=dict)

    @classmethod
    def find(cls, context: Context, topology: Topology) -> WaysHome:
        """Return the ways of the context's processes."""
        return cls(_find_ways(context, topology), context, topology)

    def route(self) -> Route:
        """Return the route of pages of which each goes its own way."""
        return Route(
            node_map=NodeMap(pairs={}, mapper=BY_PAGE),
            sources=NodeSet(node for way in self.ways.values() for node in way.strays),
            destinations=NodeSet(node for way in self.ways.values() for node in way.homes),
        )

    def choose(self, pages: Pages) -> Choice:
        """Return the node of pages by the ways of the processes that map them."""
        return self.choose_for_all(pages, self.ways.values())

    def choose_for_all(self, pages: Pages, ways: Iterable[Way]) -> Choice:
        """Return the node of pages that, if they are shared, all processes of `ways` may map."""
        way = self.ways.get(pages.pid, NOWHERE)
        if pages.kind is MemoryKind.SHMEM or pages.aliases:
            placed = [way for way in ways if way.homes]
            strays = way.strays.intersection(*(way.strays for way in placed))
            homes = NodeSet(node for way in placed for node in way.homes)
            way = Way(NodeSet(strays) - homes, homes)
        if pages.node not in way.strays:
            return None
        home = self.map_of(way).pairs[pages.node]
        if home not in pages.allowed:
            raise RefusedError(
                f"memory of process {pages.pid} belongs on node {home}, but its cpuset, or that of"
                f" the calling process, allows node {pages.allowed} only; widen cpuset.mems first"
            )
        return home

    def map_of(self, way: Way) -> NodeMap:
        """Return the node map of a way, made once by the request's mapper or by `nearest`."""
        if way not in self.maps:
            request, plugins = self.context.settings.request, self.context.plugins
            self.maps[way] = ask_mapper(
                request.mapper or "nearest", plugins, way.strays, way.homes, self.topology
            )
        return self.maps[way]


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
    return dict.fromkeys(held, NOWHERE) | ways


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
