"""Plans, and what refuses them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from schedhook.backends.simulated import PAGE, SimulatedArea, SimulatedBackend, four_nodes
from schedhook.backends.simulated.target import SimulatedTarget
from schedhook.host.topology import HugePool, Topology
from schedhook.values.errors import ProcessGoneError
from schedhook.values.grants import Grant
from schedhook.values.model import MemoryKind, Outcome
from schedhook.values.report_json import report_to_dict
from schedhook.values.sets import NodeSet
from tests.unit.relocation.simulation import AT, QUICK, STRATEGIES, host, residency, run


def test_a_plan_that_does_not_fit_is_refused_with_the_numbers() -> None:
    backend = host([0] * 100)
    report = run(backend, reserve=(1 << 30) - 50 * PAGE)
    assert report.outcome is Outcome.REFUSED
    assert report.notes[0].startswith(
        "node 2 has no room: 0.4 MiB would arrive, and the kernel can give 1024.0 MiB (1024.0 MiB"
        " are free, 0.0 MiB are clean cache), of which 1023.8 MiB are kept in reserve;"
    )
    assert residency(backend) == {0: 100}


def cached(free: int, clean: int, dirty: int = 0) -> SimulatedBackend:
    """Return a host with 100 pages on node 0; of node 2 these numbers of pages."""
    nodes = dict(four_nodes().nodes)
    nodes[2] = replace(
        nodes[2],
        memory_free=free * PAGE,
        memory_reclaimable=clean * PAGE,
        memory_dirty=dirty * PAGE,
    )
    backend = SimulatedBackend(topology=Topology(nodes=nodes))
    backend.add_process(100, areas=[SimulatedArea(start=AT, nodes=[0] * 100)])
    return backend


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_clean_cache_is_room(strategy: str) -> None:
    backend = cached(free=30, clean=90)
    planned = report_to_dict(run(backend, reserve=0, dry_run=True, strategy=strategy))["plan"]
    assert planned["reclaimable"] == {"2": 90 * PAGE}
    assert planned["would_reclaim"] == {"2": 70 * PAGE}
    report = run(backend, reserve=0, strategy=strategy)
    assert report.outcome is Outcome.COMPLETE
    assert report.bytes_reclaimed == report_to_dict(report)["bytes_reclaimed"] == 70 * PAGE
    assert residency(backend) == {2: 100}


def test_the_reserve_holds_for_clean_cache_too() -> None:
    report = run(cached(free=30, clean=90), reserve=21 * PAGE)
    assert report.outcome is Outcome.REFUSED


def test_dirty_cache_is_no_room_but_can_become_it() -> None:
    report = run(cached(free=30, clean=0, dirty=80), reserve=0)
    assert report.outcome is Outcome.REFUSED
    assert "0.3 MiB of cache are dirty: run sync and try again, or" in report.notes[0]
    report = run(cached(free=30, clean=0, dirty=60), reserve=0)
    assert "choose other nodes, or" in report.notes[0]


def test_a_move_that_needs_no_reclaim_reports_none() -> None:
    report = run(cached(free=200, clean=90), reserve=0)
    assert (report.outcome, report.bytes_reclaimed) == (Outcome.COMPLETE, 0)


def with_neighbour(more: int, nodes: str = "2", free: int = 150) -> SimulatedBackend:
    """Return a host with 100 pages on node 0, and a cgroup that may take `more` pages."""
    grant = Grant(path="/neighbour", nodes=NodeSet.parse(nodes), more=more * PAGE)
    numbers = dict(four_nodes().nodes)
    for node in (2, 3):
        numbers[node] = replace(numbers[node], memory_free=free * PAGE)
    backend = SimulatedBackend(topology=Topology(nodes=numbers), grants=[grant])
    backend.add_process(100, areas=[SimulatedArea(start=AT, nodes=[0] * 100)])
    return backend


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_what_a_neighbour_may_still_take_is_no_room(strategy: str) -> None:
    backend = with_neighbour(more=60)
    report = run(backend, reserve=0, strategy=strategy)
    assert report.outcome is Outcome.REFUSED
    assert "cgroups that can allocate nowhere else may still take 0.2 MiB;" in report.notes[0]
    assert report_to_dict(report)["plan"]["claimed"] == {"2": 60 * PAGE}
    assert residency(backend) == {0: 100}
    report = run(backend, reserve=20 * PAGE, strategy=strategy, force=True)
    assert report.outcome is Outcome.PARTIAL
    assert report.left_by_reason == {"reserve": 30 * PAGE}
    assert "0.1 MiB are kept in reserve, and cgroups that can allocate" in report.notes[-1]
    assert residency(backend) == {0: 30, 2: 70}


@pytest.mark.parametrize("room", [0, 70, 100, 150, 299])
def test_of_several_areas_moves_what_fits(room: int) -> None:
    """They are swept together; see schedhook.migration.units."""
    backend = host([0] * 100, [0] * 100, [0] * 100)
    report = run(backend, reserve=(1 << 30) - room * PAGE, force=True)
    assert report.left_by_reason == {"reserve": (300 - room) * PAGE}
    assert report.bytes_moved == room * PAGE


def test_a_site_may_overcommit() -> None:
    config = replace(QUICK, relocation=replace(QUICK.relocation, overcommit=True))
    assert run(with_neighbour(more=60), config, reserve=0).outcome is Outcome.COMPLETE


@pytest.mark.parametrize(("more", "fits"), [(200, True), (201, False)])
def test_a_neighbour_with_two_nodes_needs_room_on_either(more: int, fits: bool) -> None:
    report = run(with_neighbour(more, nodes="2-3"), reserve=0)
    assert report.outcome is (Outcome.COMPLETE if fits else Outcome.REFUSED)


def test_what_moves_within_a_fence_takes_no_room_of_it() -> None:
    report = run(with_neighbour(1 << 20, nodes="0,2"), reserve=0)
    assert report.outcome is Outcome.COMPLETE


def test_a_swap_of_full_nodes_fits() -> None:
    backend = host([0] * 100 + [1] * 100)
    report = run(backend, node_map="0:1,1:0", reserve=(1 << 30) - 150 * PAGE)
    assert report.outcome is Outcome.COMPLETE


def test_a_dry_run_plans_and_moves_nothing() -> None:
    backend = host([0] * 10)
    report = run(backend, dry_run=True)
    assert report.outcome is Outcome.PLANNED
    assert report.plan is not None
    assert report.plan.moves == {(0, 2): 10 * PAGE}
    assert report_to_dict(report)["plan"]["moves"] == [{"from": 0, "to": 2, "bytes": 10 * PAGE}]
    assert residency(backend) == {0: 10}


def test_a_cpuset_without_the_new_node_is_refused_whichever_process_has_it() -> None:
    """A process with nothing to move, and one that has ended, may have any cpuset."""
    backend = SimulatedBackend()
    narrow = NodeSet({0, 1})
    backend.add_process(100, areas=[SimulatedArea(start=AT, nodes=[0])])
    backend.add_process(200, areas=[SimulatedArea(start=AT, nodes=[1])], allowed_nodes=narrow)
    report = run(backend, pids=(200, 100))
    assert report.outcome is Outcome.COMPLETE

    backend.add_process(300, areas=[SimulatedArea(start=AT, nodes=[0])], allowed_nodes=narrow)
    report = run(backend, pids=(200, 100, 300))
    assert report.outcome is Outcome.REFUSED
    assert report.notes[0] == (
        "the cpuset of process 300 allows node 0-1 only, not 2; widen its cgroup's cpuset.mems"
        " first"
    )
    assert residency(backend, 300) == {0: 1}


def test_a_caller_whose_cpuset_lacks_the_new_node_is_refused() -> None:
    """The kernel moves no page out of the cpuset of the calling process; cpuset(7)."""
    backend = SimulatedBackend(allowed_nodes=NodeSet({0, 1}))
    backend.add_process(100, areas=[SimulatedArea(start=AT, nodes=[0] * 10)])
    report = run(backend, force=True)
    assert report.outcome is Outcome.REFUSED
    assert report.notes[0].startswith(
        "the cpuset of the calling process has node 0-1 only, not 2, and the kernel moves pages"
    )
    assert residency(backend) == {0: 10}
    assert run(backend, node_map="0:1").outcome is Outcome.COMPLETE


def test_a_process_that_ends_while_cpusets_are_read_holds_no_other_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    backend = SimulatedBackend()
    for pid, nodes in ((100, None), (200, NodeSet({0}))):
        areas = [SimulatedArea(start=AT, nodes=[0])]
        backend.add_process(pid, areas=areas, allowed_nodes=nodes)
    original = SimulatedTarget.allowed_nodes

    def read(target: SimulatedTarget) -> NodeSet:
        if target.pid == 100:
            raise ProcessGoneError("ended")
        return original(target)

    monkeypatch.setattr(SimulatedTarget, "allowed_nodes", read)
    report = run(backend, pids=(100, 200))
    assert report.outcome is Outcome.REFUSED
    assert "process 200" in report.notes[0]


def test_huge_pages_of_pools_are_counted_apart_in_all_processes() -> None:
    """They need no room among a node's other pages."""
    pool = HugePool(size=2 << 20, total=8, free=8)
    nodes = {
        number: replace(node, huge_pools=(pool,)) for number, node in four_nodes().nodes.items()
    }
    backend = SimulatedBackend(topology=Topology(nodes=nodes))
    for pid, pages in ((100, 1), (200, 2)):
        areas = [
            SimulatedArea(start=AT, nodes=[0] * pages, page_size=2 << 20, kind=MemoryKind.HUGE),
            SimulatedArea(start=AT + (1 << 30), nodes=[0]),
        ]
        backend.add_process(pid, areas=areas)
    plan = run(backend, pids=(100, 200), dry_run=True).plan
    assert plan is not None
    assert plan.pooled == {(0, 2): 6 << 20}
