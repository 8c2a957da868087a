"""Node maps: parse them, make them by the kernel's rule, carry them out step by step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from schedhook.values.errors import UsageError
from schedhook.values.model import NodeMap
from schedhook.values.sets import NodeSet

_Member = TypeVar("_Member")
_Move = TypeVar("_Move")


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
    steps = [step for step, _ in in_order([(None, left)])]
    if any(NodeSet(step) & NodeSet(step.values()) for step in steps):
        return None
    # Nodes that keep their pages can shift the n-th to the right place, so try without and with.
    for whole in (left, moves):
        sources, destinations = NodeSet(whole), NodeSet(whole.values())
        if kernel_rule(sources, destinations) == whole:
            return [(sources, destinations)]
    return [call for step in steps for call in _rising(step)]


def in_order(
    moves: Iterable[tuple[_Member, Mapping[int, int]]],
) -> list[tuple[dict[int, int], list[_Member]]]:
    """Return the steps that carry out the moves: (old node → new node, the members that move so).

    A step fills only nodes that earlier steps have vacated, so its old and new nodes do not
    overlap; they do only for a member whose own pairs exchange nodes. Members whose pairs fit into
    one map move together by it: memory that they share is then counted once, and a member's memory
    on an old node of another goes with the other's. But what lies on a new node of its own, and not
    on an old one, has arrived.
    """
    groups = _fit(moves)
    pairs = {pair: None for its, _ in groups for pair in its.items() if pair[0] != pair[1]}
    steps: list[tuple[dict[int, int], list[_Member]]] = []
    for level in vacate_first(list(pairs), lambda pair: (NodeSet({pair[0]}), NodeSet({pair[1]}))):
        for its, members in groups:
            step = {old: new for old, new in its.items() if (old, new) in level}
            parts: dict[tuple[tuple[int, int], ...], list[_Member]] = {}
            for member, own in members:
                arrived = set(own.values()) - set(own)
                part = tuple(pair for pair in step.items() if pair[0] not in arrived)
                parts.setdefault(part, []).append(member)
            steps += [(dict(part), some) for part, some in parts.items() if part]
    return steps


def vacate_first(
    moves: Sequence[_Move], ends: Callable[[_Move], tuple[NodeSet, NodeSet]]
) -> list[list[_Move]]:
    """Return the moves in levels, none of which fills a node that a later one leaves.

    `ends` gives a move's old and new nodes. Moves that wait for each other in a circle are a level
    of their own.
    """
    left = dict(enumerate(moves))
    levels: list[list[_Move]] = []
    while left:
        before = {
            number: {
                other
                for other in left
                if other != number and ends(left[other])[0] & ends(left[number])[1]
            }
            for number in left
        }
        ready = [number for number in left if not before[number]]
        if not ready:
            circle = min((_closure(number, before) for number in left), key=len)
            ready = sorted(circle)
        levels.append([left.pop(number) for number in ready])
    return levels


def _closure(number: int, before: Mapping[int, set[int]]) -> set[int]:
    """Return the number and all those before it, directly or indirectly."""
    found, new = set[int](), {number}
    while new:
        found |= new
        new = {each for number in new for each in before[number]} - found
    return found


def _fit(
    moves: Iterable[tuple[_Member, Mapping[int, int]]],
) -> list[tuple[dict[int, int], list[tuple[_Member, Mapping[int, int]]]]]:
    """Group the members whose pairs of nodes fit into one map."""
    groups: list[tuple[dict[int, int], list[tuple[_Member, Mapping[int, int]]]]] = []
    for member, pairs in moves:
        for known, members in groups:
            if all(known.get(old, new) == new for old, new in pairs.items()):
                known.update(pairs)
                members.append((member, pairs))
                break
        else:
            groups.append((dict(pairs), [(member, pairs)]))
    return groups


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
