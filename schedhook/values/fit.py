"""Whether plans fit: what arrives on a node by them, less what leaves it, against its room."""

from __future__ import annotations

from collections.abc import Sequence

from schedhook.values.model import Plan
from schedhook.values.room import Room
from schedhook.values.sizes import MIB


def explain_no_room(plans: Sequence[Plan]) -> str | None:
    """Return why these plans do not fit if they are carried out in this order; None if they do.

    Huge pages come from pools of their own; pages for which a pool is too small are reported as
    failures instead.
    """
    change: dict[int, int] = {}
    for plan in plans:
        _add_change(change, plan)
        for room in plan.rooms:
            arriving = sum(change.get(node, 0) for node in room.nodes)
            if arriving > room.spare:
                return _explain(plan, room, arriving)
    return None


def would_reclaim(plan: Plan) -> dict[int, int]:
    """Return the bytes of cache that the kernel would drop, by destination, where it would."""
    change: dict[int, int] = {}
    _add_change(change, plan)
    sizes = {node: room.size for node, room in rooms_by_node(plan).items()}
    reclaimed = {
        node: min(size - (sizes[node] - plan.reclaimable[node]), plan.reclaimable[node])
        for node, size in sorted(change.items())
        if node in sizes
    }
    return {node: size for node, size in reclaimed.items() if size > 0}


def rooms_by_node(plan: Plan) -> dict[int, Room]:
    """Return the room of each destination."""
    return {min(room.nodes): room for room in plan.rooms if len(room.nodes) == 1}


def claimed_by_node(plan: Plan) -> dict[int, int]:
    """Return what cgroups are entitled to on each destination, and nowhere else."""
    return {node: room.claimed for node, room in rooms_by_node(plan).items()}


def _add_change(change: dict[int, int], plan: Plan) -> None:
    """Add the bytes by which the plan fills each node; pages of pools take none of its room."""
    for (old, new), size in plan.moves.items():
        small = size - plan.pooled.get((old, new), 0)
        change[new] = change.get(new, 0) + small
        change[old] = change.get(old, 0) - small


def _explain(plan: Plan, room: Room, size: int) -> str:
    free, reclaimable, dirty = (
        sum(by_node.get(node, 0) for node in room.nodes)
        for by_node in (plan.free, plan.reclaimable, plan.dirty)
    )
    if room.balance + dirty >= size:
        advice = f"{dirty / MIB:.1f} MiB of cache are dirty: run sync and try again, or"
    else:
        advice = "choose other nodes, or"
    entitled = (
        f" and cgroups that can allocate nowhere else may still take {room.claimed / MIB:.1f} MiB;"
        if room.claimed
        else ""
    )
    return (
        f"node {room.nodes} has no room: {size / MIB:.1f} MiB would arrive, and the kernel can"
        f" give {room.size / MIB:.1f} MiB ({free / MIB:.1f} MiB are"
        f" free, {reclaimable / MIB:.1f} MiB are clean cache), of which"
        f" {room.reserve / MIB:.1f} MiB are kept in reserve{entitled or ';'}"
        f" {advice} move what fits with --force"
    )
