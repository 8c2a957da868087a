"""The mappers `relative` and `nearest`; the page on node maps states both rules with examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from schedhook import MapperPlugin, hookimpl
from schedhook.host.topology import Topology
from schedhook.values.errors import UsageError
from schedhook.values.model import NodeMap
from schedhook.values.nodemap import kernel_rule
from schedhook.values.sets import NodeSet


def relative(old: NodeSet, new: NodeSet, _topology: Topology) -> NodeMap:
    """Pair the n-th old node with the n-th new one, as migrate_pages(2) does.

    If there are fewer new nodes, their order starts over. If the sets differ in size, nodes in both
    keep their pages. Raise UsageError for an empty set.
    """
    pairs = kernel_rule(old, new)
    sharing = "the map wraps round" if len(old) > len(new) else "old nodes share a new one"
    return NodeMap(pairs=pairs, mapper="relative", note=_note(pairs, new, sharing))


def nearest(old: NodeSet, new: NodeSet, topology: Topology) -> NodeMap:
    """Return the map with the least total distance that spreads evenly over the new nodes.

    Nodes in both sets keep their pages. Every new node serves the same number of old ones, or one
    more if the division leaves a remainder. Among maps with the same total, the first old node gets
    the lowest possible new node, then the second, and so on. Raise UsageError for an empty set.
    """
    if not old or not new:
        raise UsageError(
            f"the set of {'new' if old else 'old'} nodes is empty; name at least one node"
        )
    staying = old & new
    movers = list(old - new)
    pairs = {node: node for node in staying}
    if movers:
        places = _places(new, staying, len(old))
        chosen = cheapest(_costs(movers, places, list(new), topology))
        pairs |= {mover: places[place][0] for mover, place in zip(movers, chosen, strict=True)}
    note = _note(pairs, new, "old nodes share a new one")
    return NodeMap(pairs=dict(sorted(pairs.items())), mapper="nearest", note=note)


def _places(new: NodeSet, staying: NodeSet, old_count: int) -> list[tuple[int, bool]]:
    """Return the places for old nodes as (new node, whether the place must be taken).

    Each new node has its fair share of places that must be taken and, if the division leaves a
    remainder, one more that may be. A node that keeps its own pages uses up one.
    """
    fair, rest = divmod(old_count, len(new))
    own = [True] * fair + [False] * bool(rest)
    return [(node, must) for node in new for must in own[node in staying :]]


def _costs(
    movers: Sequence[int],
    places: Sequence[tuple[int, bool]],
    new: Sequence[int],
    topology: Topology,
) -> list[list[int]]:
    """Return the cost of each place for each mover.

    One integer combines three criteria, most significant first: whether the place must be taken,
    the distance, and the position among the new nodes. The position of an earlier mover outweighs
    those of all later movers together.
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
    """Return a column for each row, all different, with the least sum of costs.

    There must be at least as many columns as rows. This is the Hungarian method with potentials,
    in time rows² · columns: it adds one row after the other, and the columns on the cheapest path
    from that row to a free column change their rows.
    """
    columns = range(len(costs[0]))
    row_price = [0] * len(costs)
    column_price = [0] * len(columns)
    owner: list[int | None] = [None] * len(columns)
    for row in range(len(costs)):
        path = _cheapest_path(costs, row, owner, row_price, column_price)
        row_price[row] += path.length
        for column, reached in path.reached.items():
            saved = path.length - reached
            column_price[column] -= saved
            if (held_by := owner[column]) is not None:
                row_price[held_by] += saved
        end = path.end
        while (previous := path.before[end]) is not None:
            owner[end] = owner[previous]
            end = previous
        owner[end] = row
    column_of = {row: column for column, row in enumerate(owner) if row is not None}
    return [column_of[row] for row in range(len(costs))]


@dataclass(frozen=True, slots=True)
class _Path:
    """The cheapest path from a row to a free column."""

    end: int
    length: int
    reached: Mapping[int, int]
    """The length of the cheapest path to each column that was visited."""
    before: Sequence[int | None]
    """The column ahead of each column on the path to it."""


def _cheapest_path(
    costs: Sequence[Sequence[int]],
    row: int,
    owner: Sequence[int | None],
    row_price: Sequence[int],
    column_price: Sequence[int],
) -> _Path:
    """Find the path by Dijkstra's algorithm over the reduced costs, which are never negative."""
    columns = range(len(costs[0]))
    length: dict[int, int] = {}
    before: list[int | None] = [None] * len(columns)
    reached: dict[int, int] = {}
    last, paid = None, 0
    while True:
        for column in columns:
            if column in reached:
                continue
            price = paid + costs[row][column] - row_price[row] - column_price[column]
            if column not in length or price < length[column]:
                length[column], before[column] = price, last
        paid, last = min((length[column], column) for column in columns if column not in reached)
        reached[last] = paid
        occupant = owner[last]
        if occupant is None:
            return _Path(last, paid, reached, before)
        row = occupant


def _note(pairs: Mapping[int, int], new: NodeSet, sharing: str) -> str:
    """Return a sentence on what is easily overlooked: shared new nodes, and unused ones."""
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
    """Register both mappers."""
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
