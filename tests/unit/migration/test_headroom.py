"""The room on the destinations, watched while memory moves."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from schedhook.migration import headroom as module
from schedhook.migration.headroom import Headroom
from schedhook.values.room import Room
from schedhook.values.sets import NodeSet

TO_2 = frozenset({(0, 2)})


class Host:
    """A host whose node 2 has `size` bytes of room; it counts how often that is read."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.readings = 0

    def read(self) -> Sequence[Room]:
        self.readings += 1
        return [Room(nodes=NodeSet({2}), size=self.size)]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


@pytest.mark.usefixtures("clock")
def test_without_rooms_there_is_no_limit() -> None:
    assert Headroom().take(TO_2, 1 << 60, 1) == 1 << 60


@pytest.mark.usefixtures("clock")
def test_what_is_taken_and_has_not_arrived_cannot_be_taken_twice() -> None:
    room = Headroom(Host(100).read)
    assert room.take(TO_2, 60, 1) == 60
    assert room.take(TO_2, 60, 1) == 40
    assert room.take(TO_2, 60, 1) == 0
    room.settle(TO_2, 60, 10)
    assert room.take(TO_2, 60, 1) == 50


@pytest.mark.usefixtures("clock")
def test_less_than_the_least_is_not_taken() -> None:
    room = Headroom(Host(100).read)
    assert room.take(TO_2, 150, least=120) == 0
    assert room.take(TO_2, 150, least=100) == 100


def test_what_others_allocate_is_seen_at_the_next_reading(clock: list[float]) -> None:
    host = Host(100)
    room = Headroom(host.read)
    assert room.take(TO_2, 10, 1) == 10
    host.size = 15
    assert room.take(TO_2, 20, 1) == 20
    clock[0] += 1
    assert room.take(TO_2, 20, 1) == 0, "30 are still to come"
    room.settle(TO_2, 30, 0)
    assert room.take(TO_2, 20, 1) == 15


def test_room_that_appeared_is_seen_where_it_is_needed(clock: list[float]) -> None:
    host = Host(10)
    room = Headroom(host.read)
    assert room.take(TO_2, 50, 50) == 0
    host.size = 100
    clock[0] += 0.02
    assert room.take(TO_2, 50, 50) == 50


@pytest.mark.usefixtures("clock")
def test_it_is_not_read_for_every_part() -> None:
    host = Host(1 << 30)
    room = Headroom(host.read)
    for _ in range(100):
        room.take(TO_2, 1, 1)
    assert host.readings == 1


@pytest.mark.usefixtures("clock")
def test_a_whole_process_takes_all_or_nothing() -> None:
    room = Headroom(Host(100).read)
    with room.taken({(0, 2): 80, (1, 3): 10}) as first:
        assert first
        with room.taken({(0, 2): 30, (1, 3): 10}) as second:
            assert not second
    assert room.fits(TO_2, 100)


@pytest.mark.usefixtures("clock")
def test_what_has_left_a_node_makes_room_there() -> None:
    rooms = [Room(nodes=NodeSet({node}), size=10) for node in (0, 2)]
    room = Headroom(lambda: rooms)
    back = frozenset({(2, 0)})
    assert room.take(back, 10, 1) == 10
    room.settle(back, 10, 10)
    assert room.take(TO_2, 20, 1) == 20
    room.settle(TO_2, 20, 15)
    assert room.take(back, 20, 1) == 15


@pytest.mark.usefixtures("clock")
def test_the_balance_of_a_node_that_is_too_full_is_negative() -> None:
    rooms = [Room(nodes=NodeSet({2}), size=5, claimed=10), Room(nodes=NodeSet({2, 3}), size=4)]
    room = Headroom(lambda: rooms)
    assert room.balance(2, NodeSet({0})) == -5
    assert room.balance(2, NodeSet({3})) == -5
    assert room.balance(3, NodeSet({0})) == 4
    assert room.balance(3, NodeSet({2})) == 0
