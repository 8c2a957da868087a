"""What arrives on a node by plans, less what leaves it, against the node's room."""

from __future__ import annotations

from collections.abc import Sequence

from schedhook.values.model import Plan

_MIB = 1 << 20


def explain_no_room(plans: Sequence[Plan]) -> str | None:
    """Return why these plans do not fit if they are carried out in this order; None if they do.

    Huge pages come from pools of their own; pages for which a pool is too small are reported as
    failures instead.
    """
    change: dict[int, int] = {}
    for plan in plans:
        _add_change(change, plan)
        for node in sorted(plan.room):
            if change.get(node, 0) > max(plan.room[node] - plan.reserve, 0):
                return _explain(plan, node, change[node])
    return None


def would_reclaim(plan: Plan) -> dict[int, int]:
    """Return the bytes of cache that the kernel would drop, by destination, where it would."""
    change: dict[int, int] = {}
    _add_change(change, plan)
    reclaimed = {
        node: min(size - (plan.room[node] - plan.reclaimable[node]), plan.reclaimable[node])
        for node, size in sorted(change.items())
        if node in plan.room
    }
    return {node: size for node, size in reclaimed.items() if size > 0}


def _add_change(change: dict[int, int], plan: Plan) -> None:
    """Add the bytes by which the plan fills each node; pages of pools take none of its room."""
    for (old, new), size in plan.moves.items():
        small = size - plan.pooled.get((old, new), 0)
        change[new] = change.get(new, 0) + small
        change[old] = change.get(old, 0) - small


def _explain(plan: Plan, node: int, size: int) -> str:
    dirty = plan.dirty.get(node, 0)
    if plan.room[node] - plan.reserve + dirty >= size:
        advice = f"{dirty / _MIB:.1f} MiB of cache are dirty: run sync and try again, or"
    else:
        advice = "choose other nodes, or"
    return (
        f"node {node} has no room: {size / _MIB:.1f} MiB would arrive, and the kernel can"
        f" give {plan.room[node] / _MIB:.1f} MiB ({plan.free[node] / _MIB:.1f} MiB are"
        f" free, {plan.reclaimable[node] / _MIB:.1f} MiB are clean cache), of which"
        f" {plan.reserve / _MIB:.1f} MiB are kept in reserve;"
        f" {advice} move what fits with --force"
    )
