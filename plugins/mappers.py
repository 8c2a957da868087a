"""The mappers `relative` and `nearest`; the page on node maps states both rules with examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from schedhook import MapperPlugin, hookimpl
from schedhook.host.topology import Topology
from schedhook.values.errors import UsageError
from schedhook.values.model import NodeMap
from schedhook.values.nodemap import kernel_rule
from schedhook.values.sets import NodeSet


def relative(old: NodeSet, new: NodeSet, _topology: Topology) -> NodeMap:
    """Pair nodes as migrate_pages(2) does: the n-th old node with the n-th new one, wrapping round.

    If the sets differ in size, nodes that are in both keep their pages. Raise UsageError for an
    empty set.
    """
    pairs = kernel_rule(old, new)
    sharing = "the map wraps round" if len(old) > len(new) else "old nodes share a new one"
    return NodeMap(pairs=pairs, mapper="relative", note=_note(pairs, new, sharing))


def nearest(old: NodeSet, new: NodeSet, topology: Topology) -> NodeMap:
    """Return the map with the least total distance among those that spread old nodes evenly.

    Nodes that are in both sets keep their pages. Each new node gets the same number of old nodes;
    if the division leaves a remainder, some get one more. Among maps of the same total, the first
    old node gets the lowest possible new node, then the second, and so on. Raise UsageError for an
    empty set.
    """
    if not old or not new:
        raise UsageError(
            f"the set of {'new' if old else 'old'} nodes is empty; name at least one node"
        )
    staying = old & new
    movers = list(old - new)
    fair, rest = divmod(len(old), len(new))
    # A place takes one old node. Each new node has `fair` places that must be taken and, if the
    # division left a remainder, one more that may be. A node that keeps its own pages takes one.
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
    """Return the cost of each mover (row) in each place (column).

    One integer combines three criteria, in this order: places that must be taken are taken; the
    distance is least; and the position among the new nodes is lowest, where the first mover's
    position weighs more than those of all later movers together.
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
    """Return a column for each row, each column at most once, with the least sum of costs.

    There must be at least as many columns as rows. This is the Hungarian method with potentials,
    in time rows² · columns: rows are added one by one. For each, Dijkstra's algorithm finds a
    shortest path over the reduced costs, which are never negative, to a column without a row; then
    each row on the path moves to the next column of the path.
    """
    columns = range(len(costs[0]))
    row_price = [0] * len(costs)
    column_price = [0] * len(columns)
    owner: list[int | None] = [None] * len(columns)
    for new_row in range(len(costs)):
        reach: list[int | None] = [None] * len(columns)  # least price of a path to each column
        before: list[int | None] = [None] * len(columns)  # the column before it on that path
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
    """Return a sentence for the report: which old nodes share a new one, which nodes get none."""
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
