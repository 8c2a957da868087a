"""Which memory policies a process has, and which of them a node map leaves behind."""

from __future__ import annotations

from dataclasses import replace

import pytest

from schedhook.migration.policies import (
    ProcessPolicies,
    collect_policies,
    count_policies,
    left_behind,
)
from schedhook.values.model import Area, MemoryKind
from schedhook.values.nodemap import parse_map
from schedhook.values.objects import ObjectId
from schedhook.values.policy import Policy, PolicyCount

MIB = 1 << 20


def area(start: int, policy: str, *, resident: int = MIB, path: str = "") -> Area:
    return Area(
        start=start * MIB,
        end=(start + 8) * MIB,
        kind=MemoryKind.FILE if path else MemoryKind.ANON,
        page_size=4096,
        residency={0: resident} if resident else {},
        path=path,
        policy=policy,
    )


def process(shown: str, *areas: Area, **threads: str) -> ProcessPolicies:
    policies = {int(name[1:]): Policy.parse(text) for name, text in threads.items()}
    return collect_policies([area(0, shown, path="/bin/app"), *areas], policies)


def left(
    policies: ProcessPolicies, node_map: str, was: ProcessPolicies | None = None
) -> PolicyCount:
    before = policies if was is None else was
    given = parse_map(node_map)
    vacated = given.sources - given.destinations
    return count_policies([left_behind(policies, before, given.moves, vacated)])


def test_a_thread_governs_what_is_in_memory() -> None:
    bound = process("bind:0", area(10, "bind:0"), area(20, "bind:0", resident=0), t5="bind:0")
    assert left(bound, "0:2") == PolicyCount(threads=1, bytes=MIB)
    assert not left(bound, "1:2")


def test_an_area_with_a_policy_of_its_own_counts_whole() -> None:
    own = process("default", area(10, "bind:0"), area(20, "interleave:0-1", resident=0), t5="local")
    assert left(own, "0:2") == PolicyCount(threads=0, bytes=16 * MIB)
    assert left(own, "1:2") == PolicyCount(threads=0, bytes=8 * MIB)


def test_every_thread_counts() -> None:
    threads = process("default", t5="default", t6="bind:0", t7="prefer:0", t8="interleave:0-3")
    assert left(threads, "0:2").threads == 3
    assert left(threads, "3:2").threads == 1


@pytest.mark.parametrize(
    ("policy", "node_map", "is_left"),
    [
        ("bind:0", "0:2", True),
        ("bind:0,2", "0:2", True),
        ("prefer (many):0-1", "0:2", True),
        ("weighted interleave:0,3", "0:2", True),
        ("bind=static:0", "0:2", True),
        ("bind:2", "0:2", False),
        ("local", "0:2", False),
        # Nodes that change places: a spread over both is right as it is.
        ("interleave:0-1", "0:1,1:0", False),
        ("bind:0", "0:1,1:0", True),
    ],
)
def test_modes_and_maps(policy: str, node_map: str, is_left: bool) -> None:
    assert bool(left(process(policy, t5=policy), node_map)) == is_left


def test_where_nodes_overlap_a_policy_that_has_followed_is_not_left() -> None:
    before = process("bind:0", area(10, "bind:0"), area(20, "bind:1"), t5="bind:0", t6="bind:1")
    after = process("bind:1", area(10, "bind:1"), area(20, "bind:2"), t5="bind:1", t6="bind:2")
    assert not left(after, "0:1,1:2", before)
    assert left(before, "0:1,1:2", before).threads == 2
    # A thread that is new can only be judged by nodes that nothing moves to.
    assert left(process("bind:0", t7="bind:0"), "0:1,1:2", before).threads == 1
    assert left(process("bind:1", t7="bind:1"), "0:1,1:2", before).threads == 0


def test_a_shared_object_counts_once() -> None:
    shared = replace(area(10, "bind:0"), is_shared=True, object_id=ObjectId("0:1", 7))
    two = [process("default", shared), process("default", shared)]
    assert count_policies(two) == PolicyCount(threads=0, bytes=8 * MIB)


def test_files_and_unknown_policies_do_not_count() -> None:
    found = collect_policies([area(0, "bind:0", path="/bin/app"), area(10, "new")], {5: None})
    assert (count_policies([found]), found.unread) == (PolicyCount(), 1)
