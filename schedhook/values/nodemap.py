"""Node maps: parse them, make them by the kernel's rule, express them as kernel calls."""

from __future__ import annotations

from collections.abc import Mapping

from schedhook.values.errors import UsageError
from schedhook.values.model import NodeMap
from schedhook.values.sets import NodeSet


def parse_map(text: str) -> NodeMap:
    """Parse `0:1,1:0` (old:new). Raise UsageError, also for an old node that is named twice."""
    pairs: dict[int, int] = {}
    for part in text.split(","):
        old_text, colon, new_text = part.partition(":")
        old, new = _node(old_text), _node(new_text)
        if not colon or old is None or new is None:
            raise UsageError(
                f"bad node map {text!r}: {part.strip()!r} is not OLD:NEW, such as 0:2 in 0:2,1:3"
            )
        if old in pairs:
            raise UsageError(f"bad node map {text!r}: node {old} is mapped twice")
        pairs[old] = new
    return NodeMap(pairs=pairs)


def kernel_rule(sources: NodeSet, destinations: NodeSet) -> dict[int, int]:
    """Return the new node of each source in one migrate_pages(2) call.

    The rule is that of do_migrate_pages() in the kernel's mm/mempolicy.c: the n-th source goes to
    the n-th destination, starting over if there are fewer destinations. If the sets differ in size,
    a source that is also a destination keeps its pages (but is counted). Raise UsageError for an
    empty set.
    """
    if not sources or not destinations:
        which = "old" if not sources else "new"
        raise UsageError(f"the set of {which} nodes is empty; name at least one node")
    targets = list(destinations)
    stay = sources & destinations if len(sources) != len(destinations) else NodeSet()
    return {
        source: source if source in stay else targets[position % len(targets)]
        for position, source in enumerate(sources)
    }


def as_kernel_calls(moves: Mapping[int, int]) -> list[tuple[NodeSet, NodeSet]] | None:
    """Return calls of migrate_pages(2) that, in this order, perform exactly this map.

    One call suffices if the kernel's rule yields the map; else there are several, each of which
    fills only nodes that earlier calls have vacated. Return None if nodes exchange their pages: no
    order of calls distinguishes pages that have arrived on a node from those that must leave it.
    """
    left = {old: new for old, new in sorted(moves.items()) if old != new}
    if not left:
        return []
    # Nodes that keep their pages can shift the n-th to the right place, so try without and with.
    for whole in (left, moves):
        sources, destinations = NodeSet(whole), NodeSet(whole.values())
        if kernel_rule(sources, destinations) == whole:
            return [(sources, destinations)]
    calls: list[tuple[NodeSet, NodeSet]] = []
    while left:
        ready = {old: new for old, new in left.items() if new not in left}
        if not ready:
            return None
        calls += _rising(ready)
        left = {old: new for old, new in left.items() if old not in ready}
    return calls


def _rising(pairs: Mapping[int, int]) -> list[tuple[NodeSet, NodeSet]]:
    """Split the pairs so that in each call old and new nodes ascend together.

    That is how the kernel pairs them.
    """
    groups: list[dict[int, int]] = []
    for old, new in sorted(pairs.items()):
        group = next((group for group in groups if max(group.values()) < new), None)
        if group is None:
            groups.append(group := {})
        group[old] = new
    return [(NodeSet(group), NodeSet(group.values())) for group in groups]


def _node(text: str) -> int | None:
    try:
        (node,) = NodeSet.parse(text)
    except ValueError:
        return None
    return node
