"""The strategy profile-guided: which pages move where, by a profile of accesses."""

from __future__ import annotations

from typing import Any

import pytest

from schedhook.backends.simulated import PAGE, SimulatedArea, SimulatedBackend
from schedhook.host.topology import Node, Topology
from schedhook.plugins.loading import load_plugins
from schedhook.relocation.pipeline import relocate
from schedhook.roles.guidance import Guidance
from schedhook.roles.profile import Profile
from schedhook.roles.request import Request
from schedhook.values.config import Config, PluginsSection, RelocationSection
from schedhook.values.errors import UsageError
from schedhook.values.model import MemoryKind, Outcome, Report
from schedhook.values.sets import CpuSet, NodeSet
from schedhook_plugins.strategies import profile_guided
from tests.unit.migration.test_page_choice import AT, Plug, layout, process

HUGE = 2 << 20


def guidance(counts: dict[int, dict[int, int]], **more: Any) -> Guidance:
    """Of process 100: accesses by node for pages by number."""
    profile = Profile()
    for page, by_node in counts.items():
        for node, count in by_node.items():
            profile.add(100, AT + page * PAGE, node, count)
    return Guidance(
        **{"accesses": {100: profile.accesses([100])}, "nodes": NodeSet(range(4)), **more}
    )


def guided(backend: SimulatedBackend, by: Guidance | None, **request: Any) -> Report:
    config = Config(
        relocation=RelocationSection(backend="test", strategy="profile-guided"),
        plugins=PluginsSection(third_party=False),
    )
    plugins = load_plugins(config, extra=[Plug(backend, lambda _: None)], environ={})
    return relocate(Request(**{"pids": (100,), "guidance": by, **request}), config, plugins)


def test_pages_move_to_the_node_that_uses_them_most() -> None:
    backend = process([0] * 6, [0] * 2)
    by = guidance({0: {1: 5}, 1: {0: 5}, 2: {0: 2, 3: 9}, 3: {0: 5, 1: 5}, 4: {1: 1}})
    report = guided(backend, by)
    assert report.outcome is Outcome.COMPLETE
    assert layout(backend) == [[1, 0, 3, 0, 0, 0], [0, 0]]
    effect = by.effects[100]
    assert effect.before == {(0, 0): 12, (1, 0): 11, (3, 0): 9}
    assert effect.after == {(1, 1): 5, (0, 0): 10, (0, 3): 2, (3, 3): 9, (1, 0): 6}
    assert (effect.total, effect.local_before, effect.local_after) == (32, 12, 24)


@pytest.mark.parametrize(
    ("counts", "more", "goes"),
    [
        ({1: 2}, {}, 1),
        ({1: 1}, {}, 0),
        ({1: 1}, {"min_samples": 1}, 1),
        ({1: 6, 2: 4}, {}, 1),
        ({1: 59, 2: 41}, {}, 0),
        ({1: 59, 2: 41}, {"min_share": 0.5}, 1),
        ({0: 5, 1: 5}, {"min_share": 0.5}, 0),
        ({3: 9}, {"nodes": NodeSet({0, 1})}, 0),
        ({3: 5, 1: 5}, {"nodes": NodeSet({0, 1}), "min_share": 0.5}, 1),
        ({3: 9, 1: 5}, {"nodes": NodeSet({0, 1})}, 0),
        ({2: 5, 1: 5}, {"min_share": 0.5}, 1),
    ],
)
def test_thresholds_and_the_jobs_nodes(
    counts: dict[int, int], more: dict[str, Any], goes: int
) -> None:
    backend = process([0])
    guided(backend, guidance({0: counts}, **more))
    assert layout(backend) == [[goes]]


def test_a_page_that_two_nodes_use_alike_stays() -> None:
    backend = process([1, 2])
    guided(backend, guidance({0: {0: 5, 1: 5}, 1: {1: 5, 2: 5}}, min_share=0.5))
    assert layout(backend) == [[1, 2]]


def test_nodes_outside_the_cpuset_are_not_proposed() -> None:
    backend = process([0], allowed_nodes=NodeSet({0, 1}))
    report = guided(backend, guidance({0: {2: 9}}))
    assert report.outcome is Outcome.NOTHING_TO_DO


def test_a_huge_page_counts_as_one() -> None:
    backend = SimulatedBackend()
    backend.add_process(100, areas=[SimulatedArea(start=AT, nodes=[0, 0], folio_size=HUGE)])
    report = guided(backend, guidance({0: {0: 3}, 7: {1: 4}, 511: {1: 5}, 512: {1: 1}}))
    assert report.bytes_moved == HUGE
    with backend.attach(100) as target:
        (area,) = target.areas()
        assert [run.node for run in target.locate(area, area.start, area.end)] == [1, 0]


def test_shared_memory_counts_what_every_process_does() -> None:
    backend = SimulatedBackend()
    for pid, start in ((100, AT), (200, AT + (1 << 30))):
        area = SimulatedArea(start=start, nodes=[0, 0], kind=MemoryKind.SHMEM, name="segment")
        backend.add_process(pid, areas=[area])
    profile = Profile()
    profile.add(100, AT, 0, 4)
    profile.add(200, AT + (1 << 30), 2, 9)
    profile.add(200, AT + (1 << 30) + PAGE, 3, 2)
    by = Guidance(
        accesses={pid: profile.accesses([pid]) for pid in (100, 200)}, nodes=NodeSet(range(4))
    )
    report = guided(backend, by, pids=(100, 200))
    assert report.outcome is Outcome.COMPLETE
    assert layout(backend, 100) == layout(backend, 200) == [[2, 3]]
    assert sum(each.total for each in by.effects.values()) == 15


def test_64_nodes_with_gaps() -> None:
    numbers = [5 * n + 2 for n in range(64)]
    topology = Topology(
        nodes={
            n: Node(number=n, cpus=CpuSet({n}), memory_total=1 << 30, memory_free=1 << 30)
            for n in numbers
        }
    )
    backend = process([numbers[0]] * 64, topology=topology)
    by = guidance({i: {n: 3} for i, n in enumerate(numbers)}, nodes=NodeSet(numbers))
    assert guided(backend, by).outcome is Outcome.COMPLETE
    assert layout(backend) == [numbers]


def test_it_needs_a_profile() -> None:
    with pytest.raises(UsageError, match="schedhook profile LOG"):
        guided(process([0]), None)


def test_thresholds_are_inclusive() -> None:
    by = guidance({}, min_samples=4, min_share=0.75)
    assert profile_guided.best_node({1: 3, 0: 1}, 0, NodeSet({0, 1}), by) == 1
    assert profile_guided.best_node({1: 2, 0: 1}, 0, NodeSet({0, 1}), by) is None
