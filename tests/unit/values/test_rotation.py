"""Rotations of jobs that trade places: made-up hosts, and random ones."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from schedhook.values.room import Room
from schedhook.values.rotation import (
    Chunk,
    Demand,
    Rotation,
    carry_out,
    choose_chunk,
    plan_rotation,
)
from schedhook.values.sets import NodeSet

MIB = 1 << 20
NODES = NodeSet(range(4))


def rooms(*mib: int, reserve: int = 0) -> list[Room]:
    """Return a room of each node, which can give so many MiB."""
    return [
        Room(nodes=NodeSet({node}), size=size * MIB, reserve=reserve * MIB)
        for node, size in enumerate(mib)
    ]


def demands(*moves: tuple[int, int, int, float], allowed: NodeSet = NODES) -> list[Demand]:
    """Return demands of (job, old node, new node, MiB)."""
    return [
        Demand(job=job, old=old, new=new, size=int(mib * MIB), allowed=allowed)
        for job, old, new, mib in moves
    ]


def steps(rotation: Rotation) -> list[tuple[int, int, int, int]]:
    """Return (job, old node, node to which it goes, MiB) of each chunk."""
    return [
        (each.demand.job, each.demand.old, each.to, each.size // MIB) for each in rotation.chunks
    ]


def sizes_by_job(wanted: Sequence[Demand]) -> Mapping[int, int]:
    """Return the bytes of each job."""
    sizes: dict[int, int] = {}
    for each in wanted:
        sizes[each.job] = sizes.get(each.job, 0) + each.size
    return sizes


def carried_out(
    wanted: Sequence[Demand], space: Sequence[Room], chunks: Sequence[Chunk]
) -> tuple[Sequence[Demand], Sequence[Room], Mapping[int, int]]:
    """Carry the chunks out; return what is left, the rooms, and the detoured bytes by job.

    Check what must be so at each of them.
    """
    detoured: dict[int, int] = {}
    for chunk in chunks:
        assert chunk.demand in wanted, "it names memory as it is by then"
        assert 0 < chunk.size <= chunk.demand.size
        if chunk.is_detour:
            assert chunk.to in chunk.demand.allowed
            assert not chunk.demand.waits, "no byte makes two detours"
            job = chunk.demand.job
            detoured[job] = detoured.get(job, 0) + chunk.size
        before = space
        wanted, space = carry_out(wanted, space, chunk)
        for room, was in zip(space, before, strict=True):
            assert room.balance >= 0 or room.balance >= was.balance, "below the reserve"
    return wanted, space, detoured


def in_their_order(wanted: Sequence[Demand], space: Sequence[Room]) -> tuple[Chunk, ...]:
    """Return the chunks that are chosen one after the other, as when memory moves."""
    chunks = list[Chunk]()
    while wanted and (chunk := choose_chunk(wanted, space)):
        chunks.append(chunk)
        wanted, space = carry_out(wanted, space, chunk)
    return tuple(chunks)


def test_nothing_to_move() -> None:
    assert plan_rotation([], rooms(0, 0)) == Rotation()


def test_what_fits_moves_at_once() -> None:
    rotation = plan_rotation(demands((1, 0, 1, 300)), rooms(0, 300))
    assert steps(rotation) == [(1, 0, 1, 300)]


def test_two_jobs_swap_through_the_room_of_one_node() -> None:
    wanted = demands((1, 0, 1, 300), (2, 1, 0, 300))
    rotation = plan_rotation(wanted, rooms(0, 100))
    assert steps(rotation) == [
        (1, 0, 1, 100),
        (2, 1, 0, 100),
        (1, 0, 1, 100),
        (2, 1, 0, 100),
        (1, 0, 1, 100),
        (2, 1, 0, 100),
    ]


def test_the_ring_of_three_jobs() -> None:
    """The room of all nodes of the ring goes round with it."""
    wanted = demands((1, 1, 0, 600), (2, 2, 1, 600), (3, 0, 2, 600))
    rotation = plan_rotation(wanted, rooms(64, 64, 64, 64))
    assert steps(rotation)[:4] == [(1, 1, 0, 64), (2, 2, 1, 128), (3, 0, 2, 192), (1, 1, 0, 192)]
    assert not rotation.refused
    left, after, detoured = carried_out(wanted, rooms(64, 64, 64, 64), rotation.chunks)
    assert (left, list(after), detoured) == ((), rooms(64, 64, 64, 64), {})


PAGE = 1 / 256
"""MiB."""


@pytest.mark.parametrize(
    ("wanted", "left"),
    [
        ([(1, 1, 0, 600 + PAGE), (2, 2, 1, 600), (3, 0, 2, 600)], {1}),
        ([(1, 1, 0, 600), (2, 2, 1, 600), (3, 0, 2, 600 - PAGE)], {1, 2}),
        ([(1, 1, 0, 600), (2, 2, 1, 600), (3, 0, 2, 600), (1, 3, 0, 1.9)], {1}),
        ([(1, 1, 0, 601.9), (1, 0, 1, 600)], {1}),
        ([(1, 0, 1, 601.5), (2, 1, 0, 600), (3, 3, 1, 600)], {1}),
    ],
    ids=["one larger", "one smaller", "a stray", "with itself", "beside another"],
)
@pytest.mark.parametrize("room", [0, 20])
def test_a_little_of_a_job_stays_so_that_a_circle_goes(
    wanted: list[tuple[int, int, int, float]], left: set[int], room: int
) -> None:
    """Its nodes are below their reserve."""
    its = demands(*wanted)
    space = rooms(room, room, room, 64, reserve=min(room, 16))
    kept = rooms(room, room, room, 64, reserve=64)
    rotation = plan_rotation(its, space, kept)
    assert {job for job, *_ in rotation.left_out} == left
    assert rotation.refused.keys() <= {3}
    going = [
        replace(each, size=each.size - rotation.left_out.get(each.key, 0))
        for each in its
        if each.job not in rotation.refused
    ]
    remains, after, _ = carried_out([each for each in going if each.size], space, rotation.chunks)
    assert not remains
    assert all(room.size >= was.size for room, was in zip(after[:3], space[:3], strict=True))


def test_a_chunk_too_much_is_not_a_little() -> None:
    wanted = demands((1, 1, 0, 602), (2, 2, 1, 600), (3, 0, 2, 600))
    assert plan_rotation(wanted, rooms(0, 0, 0, 64)).refused.keys() == {1, 2, 3}
    alone = demands((1, 1, 0, PAGE))
    assert plan_rotation(alone, rooms(0, 0)).refused.keys() == {1}, "all of it would stay"


def test_what_fits_after_all_is_not_cut() -> None:
    """Job 3 is refused in the end; before that it looked as if a part of job 0 had to stay."""
    wanted = demands(
        (0, 2, 0, 101), (1, 0, 2, 100), (3, 1, 2, 101.5), (3, 0, 3, 101.5), (3, 0, 1, 101.5)
    )
    rotation = plan_rotation(wanted, rooms(100, 20, 64, 0))
    assert rotation.refused.keys() == {3}
    assert rotation.left_out == {}


def test_a_demand_that_cannot_be_cut_is_not() -> None:
    wanted = demands((1, 1, 0, 600 + PAGE), (2, 2, 1, 600), (3, 0, 2, 600))
    rotation = plan_rotation(wanted, rooms(0, 0, 0, 64), can_leave=lambda *_: False)
    assert rotation.refused.keys() == {1, 2, 3}


def test_a_full_circle_borrows_the_room_of_another_node() -> None:
    wanted = demands((1, 0, 1, 400), (2, 1, 0, 400))
    rotation = plan_rotation(wanted, rooms(0, 0, 50, 0))
    left, after, detoured = carried_out(wanted, rooms(0, 0, 50, 0), rotation.chunks)
    assert (left, list(after)) == ((), rooms(0, 0, 50, 0))
    assert sum(detoured.values()) == 50 * MIB, "once is enough"


def test_a_node_that_the_job_may_not_use_is_no_detour() -> None:
    wanted = demands((1, 0, 1, 400), (2, 1, 0, 400), allowed=NodeSet({0, 1}))
    rotation = plan_rotation(wanted, rooms(0, 0, 50, 0))
    assert rotation.refused.keys() == {1, 2}
    assert "nothing can move first" in rotation.refused[1]


def test_without_any_room_nothing_moves() -> None:
    rotation = plan_rotation(demands((1, 0, 1, 400), (2, 1, 0, 400)), rooms(0, 0, 0, 0))
    assert (rotation.chunks, rotation.refused.keys()) == ((), {1, 2})


def test_a_job_that_cannot_go_home_keeps_no_other_job_away() -> None:
    wanted = demands((1, 0, 1, 300), (2, 1, 0, 300), (3, 2, 1, 200))
    rotation = plan_rotation(wanted, rooms(100, 100, 0))
    assert rotation.refused.keys() == {3}
    assert "node 1 has no room: 200.0 MiB of the job" in rotation.refused[3]
    assert carried_out(wanted, rooms(100, 100, 0), rotation.chunks)[0] == (wanted[2],)


def test_the_fewest_jobs_stay() -> None:
    wanted = demands((1, 0, 3, 100), (2, 1, 3, 300), (3, 2, 3, 150))
    assert plan_rotation(wanted, rooms(0, 0, 0, 400)).refused.keys() == {3}


def test_what_stays_takes_the_room_of_another_job() -> None:
    """Job 1 may not go to node 1, so it does not make room on node 0 for job 2."""
    wanted = demands((1, 0, 1, 300), (2, 2, 0, 300))
    assert plan_rotation(wanted, rooms(0, 100, 0)).refused.keys() == {1, 2}


def test_circles_hand_the_room_on_before_others_use_it_up() -> None:
    wanted = demands((3, 2, 0, 100), (1, 0, 1, 400), (2, 1, 0, 400))
    rotation = plan_rotation(wanted, rooms(100, 0, 0, 0))
    assert not rotation.refused
    assert steps(rotation)[-1] == (3, 2, 0, 100)
    assert not any(each.is_detour for each in rotation.chunks)


def test_more_may_have_to_be_left_in_the_end_than_meanwhile() -> None:
    wanted = demands((1, 0, 1, 300), (2, 1, 0, 300), (3, 2, 1, 60))
    rotation = plan_rotation(
        wanted, rooms(64, 64, 64, reserve=16), kept=rooms(64, 64, 64, reserve=64)
    )
    assert rotation.refused.keys() == {3}, "the others leave nodes as full as they were"


def test_a_fence_around_two_nodes() -> None:
    """What moves inside it takes none of its room."""
    fence = Room(nodes=NodeSet({0, 1}), size=1000 * MIB, claimed=1000 * MIB)
    space = [*rooms(500, 500, 500), fence]
    rotation = plan_rotation(demands((1, 0, 1, 400), (2, 2, 0, 100)), space)
    assert rotation.refused.keys() == {2}
    assert steps(rotation) == [(1, 0, 1, 400)]


def test_a_node_below_its_reserve_is_left_before_it_is_entered() -> None:
    wanted = demands((1, 0, 1, 250), (2, 1, 0, 350))
    space = rooms(200, 10, reserve=64)
    rotation = plan_rotation(wanted, space)
    assert steps(rotation)[0][0] == 2
    carried_out(wanted, space, rotation.chunks)


@pytest.mark.parametrize("seed", range(300))
def test_random_hosts(seed: int) -> None:
    chance = random.Random(seed)
    nodes = chance.randint(2, 8)
    reserve = chance.choice((0, 16, 64))
    space = rooms(*(chance.choice((0, 20, 64, 500)) for _ in range(nodes)), reserve=reserve)
    if chance.random() < 0.3:
        fenced = NodeSet(chance.sample(range(nodes), 2))
        size = sum(each.size for each in space if each.nodes <= fenced)
        claimed = chance.choice((0, size // 2))
        space.append(Room(nodes=fenced, size=size, claimed=claimed, reserve=reserve * MIB))
    found = dict[tuple[int, int, int], Demand]()
    for job in range(chance.randint(1, 6)):
        for _ in range(chance.randint(1, 3)):
            old, new = chance.sample(range(nodes), 2)
            size = chance.choice((4 << 10, MIB, 37 * MIB, 300 * MIB, 1000 * MIB))
            found[job, old, new] = Demand(
                job=job,
                old=old,
                new=new,
                size=size,
                allowed=NodeSet({old, new} if chance.random() < 0.2 else range(nodes)),
            )
    wanted = list(found.values())
    rotation = plan_rotation(wanted, space)
    going = [
        replace(each, size=each.size - rotation.left_out.get(each.key, 0))
        for each in wanted
        if each.job not in rotation.refused
    ]
    left, after, detoured = carried_out(
        [each for each in going if each.size], space, rotation.chunks
    )
    assert not left, "all is home"
    assert in_their_order([each for each in going if each.size], space) == rotation.chunks
    its = sizes_by_job(going)
    for job, size in sizes_by_job(wanted).items():
        assert job in rotation.refused or 0 < size - its[job] + 1 <= min(size, 2 * MIB)
    for job, size in detoured.items():
        assert size <= its[job]
    for room, was in zip(after, space, strict=True):
        assert room.balance >= min(0, was.balance)
    assert sum(each.size for each in rotation.chunks) == sum(its.values()) + sum(detoured.values())
