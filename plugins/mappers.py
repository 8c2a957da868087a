"""The mappers `relative` and `nearest`; docs/node-maps.md states both rules with examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from schedhook import MapperPlugin, hookimpl
from schedhook.host.topology import Topology
from schedhook.values.errors import UsageError
from schedhook.values.model import NodeMap
from schedhook.values.nodemap import kernel_rule
from schedhook.values.sets import NodeSet


def relative(old: NodeSet, new: NodeSet, _topology: Topology) -> NodeMap:
    """As migrate_pages(2) pairs nodes: the n-th old one with the n-th new one, counted round.

    Where the sets differ in size, nodes that lie in both keep their pages. UsageError for an
    empty set.
    """
    pairs = kernel_rule(old, new)
    sharing = "the map wraps round" if len(old) > len(new) else "old nodes share a new one"
    return NodeMap(pairs=pairs, mapper="relative", note=_note(pairs, new, sharing))


def nearest(old: NodeSet, new: NodeSet, topology: Topology) -> NodeMap:
    """The map of least total distance between old and new nodes that spreads evenly.

    Nodes in both sets keep their pages. Every new node serves the same number of old ones, or one
    more where that does not come out even. Among maps of the same total, the first old node gets
    the lowest possible new node, then the second, and so on. UsageError for an empty set.
    """
    if not old or not new:
        raise UsageError(
            f"the set of {'new' if old else 'old'} nodes is empty; name at least one node"
        )
    staying = old & new
    movers = list(old - new)
    fair, rest = divmod(len(old), len(new))
    # A place takes one old node. Each new node has `fair` places that have to be taken and, where
    # the division left a rest, one more that may be; a node that keeps its own uses up one.
    places: list[tuple[int, bool]] = []
    for node in new:
        own = [True] * fair + [False] * bool(rest)
        places += [(node, must) for must in own[node in staying :]]
    pairs = {node: node for node in staying}
    if movers:
        table = _costs(movers, places, list(new), topology)
        chosen = cheapest(table)
        pairs |= {mover: places[place][0] for mover, place in zip(movers, chosen, strict=True)}
    note = _note(pairs, new, "old nodes share a new one")
    return NodeMap(pairs=dict(sorted(pairs.items())), mapper="nearest", note=note)


def _costs(
    movers: Sequence[int],
    places: Sequence[tuple[int, bool]],
    new: Sequence[int],
    topology: Topology,
) -> list[list[int]]:
    """What each mover costs in each place.

    One whole number holds three things, the weightier above the lighter: that a place which has
    to be taken is, the distance, and the position among the new nodes, with the first mover's
    weighing more than all later ones' together.
    """
    distance = {(mover, node): topology.distance(mover, node) for mover in movers for node in new}
    farther_than_all = len(movers) * (max(distance.values()) + 1)
    position = {node: index for index, node in enumerate(new)}
    base = len(new)
    return [
        [
            (distance[mover, node] - farther_than_all * must) * base ** len(movers)
            + position[node] * base ** (len(movers) - 1 - row)
            for node, must in places
        ]
        for row, mover in enumerate(movers)
    ]


def cheapest(costs: Sequence[Sequence[int]]) -> list[int]:
    """A column for each row, no column twice, with the least sum; at least as many columns as
    rows.

    The Hungarian method with potentials, in time rows² · columns. One row after the other is
    added; a shortest path over the reduced costs (Dijkstra's, they are never negative) ends in a
    free column, and the columns on it change hands.
    """
    columns = range(len(costs[0]))
    row_price = [0] * len(costs)
    column_price = [0] * len(columns)
    owner: list[int | None] = [None] * len(columns)
    for new_row in range(len(costs)):
        reach: list[int | None] = [None] * len(columns)  # cheapest way to each column so far
        before: list[int | None] = [None] * len(columns)  # the column ahead of it on that way
        done: set[int] = set()
        row, via, paid = new_row, None, 0
        while True:
            for column in columns:
                if column in done:
                    continue
                price = paid + costs[row][column] - row_price[row] - column_price[column]
                known = reach[column]
                if known is None or price < known:
                    reach[column], before[column] = price, via
            open_columns = ((price, c) for c, price in enumerate(reach) if price is not None)
            paid, via = min(entry for entry in open_columns if entry[1] not in done)
            done.add(via)
            occupant = owner[via]
            if occupant is None:
                break
            row = occupant
        row_price[new_row] += paid
        for column in done:
            saved = paid - (reach[column] or 0)
            column_price[column] -= saved
            if (held_by := owner[column]) is not None:
                row_price[held_by] += saved
        end: int = via
        while (previous := before[end]) is not None:
            owner[end] = owner[previous]
            end = previous
        owner[end] = new_row
    column_of = {row: column for column, row in enumerate(owner) if row is not None}
    return [column_of[row] for row in range(len(costs))]


def _note(pairs: Mapping[int, int], new: NodeSet, sharing: str) -> str:
    """A sentence on what is easily overlooked: several nodes become one, some get nothing."""
    guests: dict[int, list[int]] = {}
    for old_node, new_node in pairs.items():
        guests.setdefault(new_node, []).append(old_node)
    parts = []
    shared = {node: NodeSet(nodes) for node, nodes in sorted(guests.items()) if len(nodes) > 1}
    if shared:
        parts.append(f"{sharing}: " + "; ".join(f"{nodes} to {n}" for n, nodes in shared.items()))
    if unused := new - NodeSet(guests):
        parts.append(f"nothing goes to {unused}")
    return "; ".join(parts)


@hookimpl
def schedhook_mappers() -> list[MapperPlugin]:
    return [
        MapperPlugin(
            name="relative",
            summary="n-th old node to n-th new node, as the kernel's migrate_pages does",
            map=relative,
        ),
        MapperPlugin(
            name="nearest",
            summary="least total distance from old to new, spread evenly",
            map=nearest,
        ),
    ]
