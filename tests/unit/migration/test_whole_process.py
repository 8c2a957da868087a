"""Whole-process calls, and what they leave behind."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from schedhook.backends.simulated import PAGE, SimulatedArea, SimulatedBackend
from schedhook.backends.simulated.target import SimulatedTarget
from schedhook.migration import whole_process
from schedhook.values.errors import (
    from_errno,
)
from schedhook.values.model import Outcome
from schedhook.values.sets import NodeSet
from tests.unit.relocation.simulation import AT, host, residency, run


def test_leftovers_of_a_whole_process_call_are_reported_on_request() -> None:
    backend = host([0] * 10)
    backend.fail(100, AT, [errno.EBUSY])
    report = run(backend, strategy="migrate-process", sweep_leftovers=False)
    assert report.outcome is Outcome.PARTIAL
    assert report.left_by_reason == {"unexplained": PAGE}


def test_what_may_not_be_moved_whole_is_moved_page_by_page(monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(target: SimulatedTarget, *_: NodeSet) -> int:
        raise from_errno(errno.EPERM, target.pid, "migrate_pages")

    monkeypatch.setattr(SimulatedTarget, "migrate", deny)
    backend = host([0] * 10)
    report = run(backend, strategy="migrate-process", sweep_leftovers=False)
    assert (report.outcome, residency(backend)) == (Outcome.FAILED, {0: 10})
    report = run(backend, strategy="migrate-process")
    assert (report.outcome, residency(backend)) == (Outcome.COMPLETE, {2: 10})
    assert "page by page" in report.notes[0]


@pytest.mark.parametrize("call", range(1, 4))
def test_memory_of_a_process_that_exits_has_not_moved(call: int) -> None:
    backend = SimulatedBackend()
    areas = [SimulatedArea(start=AT, nodes=[0] * 10)]
    backend.add_process(100, areas=areas, exit_after=call)
    report = run(backend, strategy="migrate-process")
    assert report.processes[0].error
    assert (report.outcome, report.bytes_moved) == (Outcome.NOTHING_TO_DO, 0)


def test_denied_calls_are_noted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(target: SimulatedTarget, *_: NodeSet) -> int:
        raise from_errno(errno.EPERM, target.pid, "migrate_pages")

    monkeypatch.setattr(SimulatedTarget, "migrate", deny)
    backend = host([0] * 10, [1] * 10)
    backend.add_process(101, areas=[SimulatedArea(start=AT, nodes=[0] * 10)])
    report = run(backend, pids=(100, 101), strategy="migrate-process", node_map="0:2,1:3")
    assert report.outcome is Outcome.COMPLETE
    (note,) = report.notes
    assert "not permitted" in note


@pytest.mark.parametrize(
    ("request_", "at_once", "whole"),
    [
        ({}, 0, True),
        ({"bandwidth_mb_s": 1000.0}, 8 * PAGE, True),
        ({"bandwidth_mb_s": 1000.0}, 8 * PAGE - 1, False),
        ({"bandwidth_mb_s": 0.32}, 8 * PAGE, False),
        ({"gentle": True}, 8 * PAGE, True),
        ({"gentle": True}, 8 * PAGE - 1, False),
    ],
)
def test_a_sparse_process_moves_whole_first_if_holes_cost_time(
    monkeypatch: pytest.MonkeyPatch, request_: dict[str, Any], at_once: int, whole: bool
) -> None:
    """Within limits only if it has no more than one call may move."""
    monkeypatch.setattr(SimulatedTarget, "skips_holes", False)
    monkeypatch.setattr(whole_process, "MOST_HOLES", 20 * PAGE)
    monkeypatch.setattr(whole_process, "_AT_ONCE", at_once)
    backend = host([0] * 4 + [None] * 30 + [0] * 4)
    backend.add_process(101, areas=[SimulatedArea(start=AT, nodes=[0] * 10)])
    report = run(backend, pids=(100, 101), **request_)
    assert (report.outcome, report.bytes_moved) == (Outcome.COMPLETE, 18 * PAGE)
    assert ("process 100 as a whole first" in str(report.notes)) == whole


@pytest.mark.parametrize(("at_once", "whole"), [(15 * PAGE, "100"), (16 * PAGE, "100, 101")])
def test_limits_hold_for_all_sparse_processes_together(
    monkeypatch: pytest.MonkeyPatch, at_once: int, whole: str
) -> None:
    monkeypatch.setattr(SimulatedTarget, "skips_holes", False)
    monkeypatch.setattr(whole_process, "MOST_HOLES", 20 * PAGE)
    monkeypatch.setattr(whole_process, "_AT_ONCE", at_once)
    areas = [SimulatedArea(start=AT, nodes=[0] * 4 + [None] * 30 + [0] * 4)]
    backend = SimulatedBackend()
    for pid in (100, 101):
        backend.add_process(pid, areas=areas)
    report = run(backend, pids=(100, 101), gentle=True)
    assert (report.outcome, report.bytes_moved) == (Outcome.COMPLETE, 16 * PAGE)
    assert f"moved process {whole} as a whole first" in str(report.notes)
