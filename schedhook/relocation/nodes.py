"""The node map of a request: given, or made by a mapper."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from schedhook.host.topology import Topology
from schedhook.plugins.manager import Plugins
from schedhook.relocation.members import Members
from schedhook.relocation.settings import Settings
from schedhook.values.errors import PluginError, UsageError
from schedhook.values.model import NodeMap
from schedhook.values.sets import NodeSet


def map_nodes(
    settings: Settings, plugins: Plugins, topology: Topology, members: Members, root: Path
) -> NodeMap:
    """Return the request's node map, empty for a strategy that chooses nodes page by page.

    Raise UsageError if the request does not say where to, or names nodes or
    processors that are not online; PluginError if the mapper is missing or breaks its contract.
    """
    node_map = settings.request.node_map
    if node_map is None:
        sources = _sources(settings, topology, members, root)
        destinations = _destinations(settings, topology)
        if settings.strategy.choose_nodes and sources is None and destinations is None:
            return NodeMap(pairs={}, mapper="by-page")
        if destinations is None:
            raise UsageError("say where to: --to (and --from), or --map, or --cpus")
        mapper = settings.mapper
        if sources is None:
            sources = topology.memory_nodes - destinations
            # From everywhere there is no relative place to keep: the nearest node is the best.
            mapper = settings.request.mapper or "nearest"
        node_map = _ask_mapper(mapper, plugins, sources, destinations, topology)
    check_nodes(node_map, topology)
    return node_map


def check_nodes(node_map: NodeMap, topology: Topology) -> None:
    """Raise UsageError if the map names an offline node, or a destination without memory."""
    _check_online(node_map.sources | node_map.destinations, topology)
    bare = node_map.destinations - topology.memory_nodes
    if bare:
        raise UsageError(f"node {bare} has no memory; nodes with memory: {topology.memory_nodes}")


def _destinations(settings: Settings, topology: Topology) -> NodeSet | None:
    request = settings.request
    if request.cpus is not None and (missing := request.cpus - topology.cpus):
        raise UsageError(
            f"no processor {missing} is online on this host;"
            f" the online processors are {topology.cpus}"
        )
    if request.destinations is None and request.cpus is not None:
        return topology.memory_nodes_of(request.cpus)
    return request.destinations


def _sources(
    settings: Settings, topology: Topology, members: Members, root: Path
) -> NodeSet | None:
    request = settings.request
    if request.sources is None and request.cpus is not None:
        return topology.memory_nodes_of(members.allowed_cpus(root))
    return request.sources


def _ask_mapper(
    name: str, plugins: Plugins, sources: NodeSet, destinations: NodeSet, topology: Topology
) -> NodeMap:
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
