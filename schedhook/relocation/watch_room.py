"""Watch the room on the nodes of one relocation, less what cgroups are entitled to there."""

from __future__ import annotations

from collections.abc import Sequence

from schedhook.host.cgroups import resolve_cgroup
from schedhook.host.grants import cpuset_path
from schedhook.host.vanishing import read_living
from schedhook.migration.headroom import Headroom
from schedhook.relocation.context import Context
from schedhook.values.grants import follow
from schedhook.values.model import NodeMap
from schedhook.values.room import Room, find_rooms


def watch_room(context: Context, node_map: NodeMap) -> Headroom:
    """Return the room on the host's nodes for the processes of the request.

    What their own cgroups may still allocate counts too, where they can get it once they have
    moved: with a strategy that changes cpusets, these are then the new nodes.
    """
    settings, backend = context.settings, context.backend
    follows = settings.strategy.changes_cpuset and not backend.is_simulation
    paths = _cpuset_paths(context) if follows else frozenset()

    def read() -> Sequence[Room]:
        topology = backend.topology()
        nodes = topology.memory_nodes
        grants = () if settings.overcommit else backend.grants(nodes)
        sizes = {node: topology.node(node).room for node in nodes}
        return find_rooms(sizes, follow(grants, paths, node_map.moves), settings.reserve)

    return Headroom(read)


def _cpuset_paths(context: Context) -> frozenset[str]:
    """Return the directories of the cpusets that the processes are in."""
    if (name := context.settings.request.cgroup) is not None:
        return frozenset({str(resolve_cgroup(name, context.root).path)})
    pids = [process.pid for process in context.members.processes]
    found = read_living(pids, lambda pid: cpuset_path(pid, context.root))
    return frozenset(path for _, path in found if path)
