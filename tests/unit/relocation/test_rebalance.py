"""Jobs brought home together, over the simulated backend: what is shared, ends or refuses."""

from __future__ import annotations

import errno
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from schedhook.backends.simulated import PAGE, SimulatedArea, SimulatedBackend, four_nodes
from schedhook.plugins.loading import load_plugins
from schedhook.relocation.rebalance import Rebalance, rebalance
from schedhook.roles.request import Request
from schedhook.roles.scheduler import Scheduler, Task
from schedhook.values.model import MemoryKind, Outcome, Placement
from schedhook.values.sets import CpuSet, NodeSet
from tests.unit.relocation.simulation import AT, QUICK, Plug, residency

MIB = 1 << 20
PAGES = MIB // PAGE
NODE = 256 * MIB
"""Small nodes are filled, and their pages counted, in little time."""


class Host:
    """A simulated host of four nodes with jobs, each of one process on the processor of a node."""

    def __init__(self, free: int = 64) -> None:
        """`free`: MiB that are free on each node once all jobs are there."""
        large = four_nodes()
        nodes = {
            number: replace(node, memory_total=NODE, memory_free=NODE)
            for number, node in large.nodes.items()
        }
        self.backend = SimulatedBackend(topology=replace(large, nodes=nodes))
        self.homes: dict[str, tuple[int, int]] = {}
        self.free = free

    def add(self, job: str, home: int, *areas: SimulatedArea, **more: Any) -> int:
        """Start a job; return its process."""
        pid = 100 + len(self.homes)
        self.homes[job] = (pid, home)
        self.backend.add_process(pid, areas=areas, **more)
        return pid

    def fill(self) -> None:
        """Let another process take what is free, but `free` MiB of each node."""
        nodes = self.backend.topology().nodes.values()
        areas = [
            SimulatedArea(
                start=AT + (node.number << 40),
                nodes=[node.number] * (node.memory_free // PAGE - self.free * PAGES),
            )
            for node in nodes
        ]
        self.backend.add_process(99, areas=areas)

    def rebalance(self, **more: Any) -> Rebalance:
        homes, parts = self.homes, {key: more.pop(key) for key in list(more) if key == "refusal"}

        class Jobs(Scheduler):
            name = "test"
            points = frozenset[str]()

            def jobs(self) -> tuple[str, ...]:
                return tuple(homes)

            def tasks(self, job: str) -> tuple[Task, ...]:
                pid, node = homes[job]
                placement = Placement(cpus=CpuSet({node}), nodes=NodeSet({node}))
                return (Task(name="0", pids=(pid,), placement=placement),)

        self.plug = Plug(self.backend, schedulers={"test": Jobs}, **parts)
        plugins = load_plugins(QUICK, extra=[self.plug], environ={})
        requests = [Request(job=job, scheduler="test", **more) for job in homes]
        result = rebalance(requests, QUICK, plugins, root=Path("/"))
        for report in result.reports:
            assert report.bytes_planned == report.bytes_moved + report.bytes_left
            assert report.bytes_left == sum(report.left_by_reason.values())
        return result

    def pages(self, job: str) -> Mapping[int, int]:
        """Return the MiB of a job by node."""
        found = residency(self.backend, self.homes[job][0])
        return {node: pages // PAGES for node, pages in found.items()}


def memory(node: int, mib: int, number: int = 0, **more: Any) -> SimulatedArea:
    return SimulatedArea(start=AT + (number << 34), nodes=[node] * (mib * PAGES), **more)


def outcomes(result: Rebalance) -> Sequence[Outcome]:
    return [report.outcome for report in result.reports]


def ring(**more: Any) -> Host:
    host = Host()
    host.add("a", 0, memory(1, 100), **more)
    host.add("b", 1, memory(2, 100))
    host.add("c", 2, memory(0, 100))
    host.fill()
    return host


def test_the_ring() -> None:
    host = ring()
    result = host.rebalance()
    assert outcomes(result) == [Outcome.COMPLETE] * 3
    assert [report.bytes_moved // MIB for report in result.reports] == [100] * 3
    assert [host.pages(job) for job in "abc"] == [{0: 100}, {1: 100}, {2: 100}]
    assert [report.job for report in host.plug.reports] == ["a", "b", "c"]


@pytest.mark.parametrize("sizes", [(100 * PAGES, 40), (100 * PAGES + 40,)])
def test_of_a_larger_job_stays_what_would_be_too_much(sizes: tuple[int, ...]) -> None:
    """The others move at once. It is an area of its own, or the end of the job's only area."""
    host = Host(free=20)
    areas = [
        SimulatedArea(start=AT + (number << 34), nodes=[1] * size)
        for number, size in enumerate(sizes)
    ]
    host.add("a", 0, *areas)
    host.add("b", 1, memory(2, 100))
    host.add("c", 2, memory(0, 100))
    host.fill()
    (planned, *_) = host.rebalance(reserve=64 * MIB, dry_run=True).reports
    began = time.monotonic()
    result = host.rebalance(reserve=64 * MIB)
    assert time.monotonic() - began < 10
    assert outcomes(result) == [Outcome.PARTIAL, Outcome.COMPLETE, Outcome.COMPLETE]
    assert result.reports[0].left_by_reason == {"reserve": 40 * PAGE}
    for report in (planned, result.reports[0]):
        (note,) = report.notes
        assert note.startswith("0.2 MiB stay where they are: ")
    assert residency(host.backend, 100) == {0: 100 * PAGES, 1: 40}
    assert [host.pages(job) for job in "bc"] == [{1: 100}, {2: 100}]
    free = [host.backend.topology().node(node).memory_free for node in range(3)]
    assert free == [20 * MIB] * 3


def test_a_dry_run_moves_nothing() -> None:
    host = ring()
    result = host.rebalance(dry_run=True)
    assert outcomes(result) == [Outcome.PLANNED] * 3
    assert sum(chunk.size for chunk in result.chunks) == 300 * MIB
    assert [host.pages(job) for job in "abc"] == [{1: 100}, {2: 100}, {0: 100}]
    assert host.plug.reports == []


def test_a_job_that_ends_meanwhile() -> None:
    host = ring(exit_after=10)
    result = host.rebalance()
    assert outcomes(result)[1:] == [Outcome.COMPLETE] * 2
    assert result.reports[0].processes[0].error
    assert [host.pages(job) for job in "bc"] == [{1: 100}, {2: 100}]


def test_a_job_that_has_ended_before() -> None:
    host = ring()
    host.backend.end_process(100)
    result = host.rebalance()
    assert outcomes(result) == [Outcome.NOTHING_TO_DO, Outcome.COMPLETE, Outcome.COMPLETE]


def test_pages_that_stay_at_first_get_another_turn() -> None:
    host = ring()
    host.backend.fail(100, AT + 7 * PAGE, [errno.EBUSY] * 4)
    assert outcomes(host.rebalance()) == [Outcome.COMPLETE] * 3
    assert host.pages("a") == {0: 100}


def test_pages_that_cannot_move_keep_no_others() -> None:
    host = ring()
    host.backend.fail(100, AT + 7 * PAGE, always=errno.EBUSY)
    result = host.rebalance()
    assert outcomes(result) == [Outcome.PARTIAL, Outcome.COMPLETE, Outcome.COMPLETE]
    assert result.reports[0].left_by_reason == {"EBUSY": PAGE}


def test_an_observer_refuses() -> None:
    host = ring()
    result = host.rebalance(refusal="not on Sundays")
    assert outcomes(result) == [Outcome.REFUSED] * 3
    assert result.reports[0].notes[-1].endswith("not on Sundays")
    assert host.pages("a") == {1: 100}


def test_a_job_that_may_not_be_moved_takes_its_ring_with_it() -> None:
    host = ring(allowed_nodes=NodeSet({1, 2}))
    result = host.rebalance()
    assert outcomes(result) == [Outcome.REFUSED] * 3
    assert "cpuset" in result.reports[0].notes[-1]
    assert "has no room" in result.reports[1].notes[-1]


def test_what_jobs_share_counts_and_moves_once() -> None:
    """It is on a node of none of them: it goes to a node of either."""
    host = Host()
    segment = {"name": "segment", "kind": MemoryKind.SHMEM}
    host.add("a", 0, memory(2, 20, **segment))
    host.add("b", 1, memory(2, 20, **segment))
    result = host.rebalance()
    assert outcomes(result) == [Outcome.COMPLETE, Outcome.NOTHING_TO_DO]
    assert [report.bytes_moved for report in result.reports] == [20 * MIB, 0]
    assert host.pages("a").keys() <= {0, 1}


def test_what_jobs_share_stays_at_the_home_of_one() -> None:
    """Else it would go from one to the other and back, time and again."""
    host = Host()
    segment = {"name": "segment", "kind": MemoryKind.SHMEM}
    host.add("a", 0, memory(1, 20, **segment))
    host.add("b", 1, memory(1, 20, **segment), memory(0, 8, 1))
    result = host.rebalance()
    assert outcomes(result) == [Outcome.NOTHING_TO_DO, Outcome.COMPLETE]
    assert host.pages("a") == {1: 20}
    assert host.pages("b") == {1: 28}
