"""What cgroups may still allocate on some nodes alone, and the room that this leaves."""

from __future__ import annotations

import pytest

from schedhook.values.grants import Grant, claimed, fences, follow
from schedhook.values.room import Room, find_rooms
from schedhook.values.sets import NodeSet


def nodes(text: str) -> NodeSet:
    return NodeSet.parse(text)


def grant(where: str, more: int | None = None, *parts: Grant, path: str = "/a") -> Grant:
    return Grant(path=path, nodes=nodes(where), more=more, parts=parts)


@pytest.mark.parametrize(
    ("its", "on", "size"),
    [
        (grant("2", 5), "2", 5),
        (grant("2", 5), "1", 0),
        (grant("2", 5), "1-2", 5),
        (grant("1-2", 5), "2", 0),
        (grant("1-2", 5), "0-2", 5),
        (grant("2", None), "2", 0),
        (grant("0-3", None, grant("2", 5), grant("2", 3)), "2", 8),
        (grant("0-3", 6, grant("2", 5), grant("2", 3)), "2", 6),
        (grant("0-3", 6, grant("2", None)), "2", 6),
        (grant("0-3", 6, grant("2", None), grant("2", None)), "2", 6),
        (grant("2", 6, grant("2", 9)), "2", 6),
        (grant("2", None, grant("2", 9)), "2", 9),
        (grant("1-2", 6, grant("1", 4), grant("2", 4)), "2", 4),
        (grant("1-2", 6, grant("1", 4), grant("2", 4)), "1-2", 6),
        (grant("0-3", 0, grant("2", 5)), "2", 0),
    ],
)
def test_what_can_only_be_had_there_is_claimed(its: Grant, on: str, size: int) -> None:
    assert claimed([its], nodes(on)) == size
    assert claimed([its, its], nodes(on)) == 2 * size


def test_the_fences_are_those_of_every_level() -> None:
    tree = grant("0-3", None, grant("1-2", 1, grant("2", 1)))
    assert list(fences([tree])) == [nodes("0-3"), nodes("1-2"), nodes("2")]


def test_a_cpuset_that_moves_takes_its_claim_along() -> None:
    tree = grant("0-3", None, grant("0", 5, grant("0", 4, path="/a/b/c"), path="/a/b"))
    moved = follow([tree], {"/a/b"}, {0: 2})
    assert list(fences(moved)) == [nodes("0-3"), nodes("2"), nodes("2")]
    assert (claimed(moved, nodes("0")), claimed(moved, nodes("2"))) == (0, 5)
    assert follow([tree], {"/x"}, {0: 2}) == (tree,)


def test_a_room_is_a_node_or_a_fence_around_several() -> None:
    sizes = dict.fromkeys(range(4), 100)
    tree = [grant("2", 30), grant("2-3", 50), grant("0-3", 7)]
    rooms = {str(room.nodes): room for room in find_rooms(sizes, tree, reserve=10)}
    assert set(rooms) == {"0", "1", "2", "3", "2-3"}
    assert [rooms[name].spare for name in ("0", "2", "3", "2-3")] == [90, 60, 90, 110]


def test_what_stays_within_a_fence_takes_none_of_its_room() -> None:
    fence, node = (Room(nodes=nodes(text), size=1) for text in ("2-3", "3"))
    assert not fence.is_entered([(2, 3)])
    assert fence.is_entered([(2, 3), (1, 2)])
    assert node.is_entered([(2, 3)])
    assert not node.is_entered([(3, 2)])


def test_a_room_that_is_overdrawn_has_nothing_to_spare() -> None:
    room = Room(nodes=nodes("1"), size=10, claimed=12, reserve=3)
    assert (room.balance, room.spare) == (-5, 0)
