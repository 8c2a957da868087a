"""Make the `Move` that the strategy of a relocation works with."""

from __future__ import annotations

from schedhook.host.topology import Topology
from schedhook.migration.move import Move, MoveOptions
from schedhook.migration.selection import Selection
from schedhook.migration.throttle import choose_threads
from schedhook.relocation.context import Context
from schedhook.relocation.nodes import Route
from schedhook.relocation.watch_room import watch_room
from schedhook.values.sets import CpuSet


def make_move(context: Context, route: Route, topology: Topology) -> Move:
    """Return the move of the context's processes on this route."""
    settings, request = context.settings, context.settings.request
    transit = context.transit
    if transit and not settings.threads:
        threads, cpus = 1, CpuSet()  # that of the caller
    else:
        threads, cpus = choose_threads(
            settings.threads,
            request.cpus or topology.cpus_of(route.destinations),
            topology.cpus_of(route.sources),
        )
    return Move(
        backend=context.backend,
        node_map=route.node_map,
        processes=context.members.processes,
        selection=Selection(
            kinds=settings.kinds,
            shared=settings.shared,
            may_move_shared=context.backend.may_move_shared(),
        ),
        options=MoveOptions(
            threads=threads,
            cpus=cpus,
            bandwidth=settings.bandwidth,
            limits=settings.limits,
            retry=settings.retry,
            reserve=settings.reserve,
            sweep_leftovers=request.sweep_leftovers,
        ),
        sources=route.sources,
        destinations=route.destinations & topology.memory_nodes,
        headroom=transit.headroom if transit else watch_room(context, route.node_map),
        guidance=request.guidance,
        member_pids=context.members.pids,
        cgroup=request.cgroup,
        plugin_options=settings.plugin_options,
        root=context.root,
        notes=context.notes,
    )
