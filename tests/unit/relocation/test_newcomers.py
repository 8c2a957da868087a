"""Processes and pages that appear during the move."""

from __future__ import annotations

import pytest

from schedhook.backends.simulated import PAGE, SimulatedArea
from schedhook.migration.move import Move
from schedhook.values.errors import (
    UsageError,
)
from schedhook.values.model import Outcome
from tests.unit.relocation.simulation import AT, host, residency, run


def test_the_memory_of_a_new_program_is_moved() -> None:
    backend = host([0] * 10)

    def move(work: Move) -> None:
        work.processes[0].gone = True  # its old address space is gone

    report = run(backend, strategies={"late": move}, strategy="late")
    assert report.outcome is Outcome.COMPLETE
    assert residency(backend) == {2: 10}
    assert report.processes[0].error is None
    assert report.notes == ("process 100 became another program during the relocation",)


def test_a_new_program_stays_where_nodes_change_places() -> None:
    """What it allocates on a node cannot be told from what arrives there."""
    backend = host([0] * 10 + [1] * 5)

    def move(work: Move) -> None:
        work.processes[0].gone = True

    report = run(backend, node_map="0:1,1:0", strategies={"late": move}, strategy="late")
    assert (report.bytes_planned, residency(backend)) == (0, {0: 10, 1: 5})
    assert "became another program" in str(report.processes[0].error)


def test_a_process_that_joins_the_cgroup_is_moved_too() -> None:
    backend = host([0] * 10)
    backend.add_cgroup("/job", [100])

    def move(work: Move) -> None:
        work.sweep()
        if len(work.processes) == 1:
            backend.add_process(101, areas=[SimulatedArea(start=AT, nodes=[0] * 4)])
            backend.add_cgroup("/job", [100, 101])

    report = run(backend, pids=(), cgroup="/job", strategies={"slow": move}, strategy="slow")
    assert report.outcome is Outcome.COMPLETE
    assert residency(backend, 101) == {2: 4}


def test_a_process_that_joins_is_moved_by_a_map_that_has_steps() -> None:
    backend = host([0] * 10 + [1] * 5)
    backend.add_cgroup("/job", [100])

    def move(work: Move) -> None:
        work.sweep()
        if len(work.processes) == 1:
            backend.add_process(101, areas=[SimulatedArea(start=AT, nodes=[0] * 4 + [1] * 2)])
            backend.add_cgroup("/job", [100, 101])

    chain = {"pids": (), "cgroup": "/job", "node_map": "0:1,1:2"}
    report = run(backend, **chain, strategies={"slow": move}, strategy="slow")
    assert (report.outcome, report.bytes_moved) == (Outcome.COMPLETE, 21 * PAGE)
    assert residency(backend, 101) == {1: 4, 2: 2}


def test_a_process_that_joins_and_may_not_be_moved_is_a_failure_with_what_moved() -> None:
    backend = host([0] * 10)
    backend.add_cgroup("/job", [100])

    def move(work: Move) -> None:
        work.sweep()
        backend.add_process(101, areas=[SimulatedArea(start=AT, nodes=[0])], permitted=False)
        backend.add_cgroup("/job", [100, 101])

    report = run(backend, pids=(), cgroup="/job", strategies={"slow": move}, strategy="slow")
    assert (report.outcome, report.bytes_moved) == (Outcome.FAILED, 10 * PAGE)
    assert "process 101: not permitted" in report.notes[-1]


def test_a_cgroup_that_ends_in_mid_move_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = host([0] * 10)
    backend.add_cgroup("/job", [100])

    def gone(path: str) -> list[int]:
        raise UsageError(f"no cgroup {path}")

    def move(work: Move) -> None:
        work.sweep()
        backend.end_process(100)
        monkeypatch.setattr(backend, "cgroup_pids", gone)

    report = run(backend, pids=(), cgroup="/job", strategies={"late": move}, strategy="late")
    assert (report.outcome, report.bytes_moved) == (Outcome.COMPLETE, 10 * PAGE)


def test_pages_that_a_strategy_skips_are_swept_afterwards() -> None:
    backend = host([0] * 10)
    report = run(backend, strategies={"lazy": lambda _: None}, strategy="lazy")
    assert (report.outcome, residency(backend)) == (Outcome.COMPLETE, {2: 10})
    backend = host([0] * 10)
    report = run(
        backend, strategies={"lazy": lambda _: None}, strategy="lazy", sweep_leftovers=False
    )
    assert (report.outcome, residency(backend)) == (Outcome.PARTIAL, {0: 10})
