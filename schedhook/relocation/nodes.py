"""The nodes of a request: where its memory comes from, where it may go, and by which map."""

from __future__ import annotations

from dataclasses import dataclass, replace

from schedhook.host.topology import Topology
from schedhook.plugins.manager import Plugins
from schedhook.relocation.context import Context
from schedhook.relocation.notes import BY_PAGE
from schedhook.roles.request import Request
from schedhook.values.errors import PluginError, UsageError
from schedhook.values.model import NodeMap
from schedhook.values.sets import NodeSet


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Where memory comes from, and where it may go."""

    node_map: NodeMap
    """Empty if a function chooses the node of each page."""
    sources: NodeSet
    destinations: NodeSet


def check_named_nodes(request: Request, topology: Topology) -> None:
    """Raise UsageError if the request names nodes or processors that are not online.

    A destination must have memory, too, and the way home has no other.
    """
    if request.home and any(
        each is not None for each in (request.node_map, request.destinations, request.cpus)
    ):
        raise UsageError("--home names the nodes itself: leave out --to, --map and --cpus")
    node_map = request.node_map or NodeMap(pairs={})
    destinations = node_map.destinations | (request.destinations or ())
    _check_online(destinations | node_map.sources | (request.sources or ()), topology)
    bare = destinations - topology.memory_nodes
    if bare:
        raise UsageError(f"node {bare} has no memory; nodes with memory: {topology.memory_nodes}")
    if request.cpus is not None and (missing := request.cpus - topology.cpus):
        raise UsageError(
            f"no processor {missing} is online on this host;"
            f" the online processors are {topology.cpus}"
        )


def find_route(context: Context, topology: Topology) -> Route:
    """Return the route of a request, whose map is empty for a strategy that chooses nodes itself.

    Raise UsageError if the request does not say where to, PluginError if the mapper is missing or
    breaks its contract.
    """
    settings = context.settings
    request = settings.request
    if request.node_map is not None:
        return _along(request.node_map)
    sources, destinations = _sources(context, topology), _destinations(request, topology)
    if settings.strategy.choose_nodes:
        return _free_route(sources, destinations, topology)
    if destinations is None:
        raise UsageError("say where to: --to (and --from), or --map, or --cpus, or --home")
    mapper = settings.mapper
    if sources is None:
        # From everywhere there is no relative place to keep: the nearest node is the best.
        sources, mapper = topology.elsewhere(destinations), request.mapper or "nearest"
        if not sources:
            return _along(NodeMap(pairs={}))
    return _along(ask_mapper(mapper, context.plugins, sources, destinations, topology))


def _free_route(sources: NodeSet | None, destinations: NodeSet | None, topology: Topology) -> Route:
    """Return the route for a strategy that chooses a node for each page.

    Unless they are named, nodes without processors are neither: what lies there stays.
    """
    everything = topology.default_nodes
    if sources is None:
        sources = everything if destinations is None else topology.elsewhere(destinations)
    return Route(
        node_map=NodeMap(pairs={}, mapper=BY_PAGE),
        sources=sources,
        destinations=everything if destinations is None else destinations,
    )


def _along(node_map: NodeMap) -> Route:
    return Route(node_map=node_map, sources=node_map.sources, destinations=node_map.destinations)


def _destinations(request: Request, topology: Topology) -> NodeSet | None:
    if request.destinations is None and request.cpus is not None:
        return topology.memory_nodes_of(request.cpus)
    return request.destinations


def _sources(context: Context, topology: Topology) -> NodeSet | None:
    request = context.settings.request
    if request.sources is None and request.cpus is not None:
        return topology.memory_nodes_of(context.members.allowed_cpus(context.root))
    return request.sources


def ask_mapper(
    name: str, plugins: Plugins, sources: NodeSet, destinations: NodeSet, topology: Topology
) -> NodeMap:
    """Return the map that a mapper makes; raise PluginError if it breaks its contract."""
    mapper = plugins.mapper(name)
    # Before the mapper runs: it would take hours for the 65,536 nodes that a list can name.
    _check_online(sources | destinations, topology)
    node_map = mapper.map(sources, destinations, topology)
    outside = NodeSet(node_map.pairs.values()) - destinations
    if outside - sources or sources - NodeSet(node_map.pairs):
        raise PluginError(
            f"the mapper {mapper.name!r} returned the map {node_map}, which does not lead from"
            f" {sources} into {destinations}"
        )
    return replace(node_map, mapper=mapper.name)


def _check_online(nodes: NodeSet, topology: Topology) -> None:
    if offline := nodes - topology.online:
        raise UsageError(
            f"node {offline} is not online on this host; the online nodes are {topology.online}"
        )
