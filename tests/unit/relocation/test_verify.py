"""Reasons for what stayed, and bytes that moved with others."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedhook.backends.simulated import PAGE
from schedhook.migration.move import Move
from schedhook.relocation.verify import explain, judge
from schedhook.roles.backend import Limits
from schedhook.values.model import Outcome
from schedhook.values.reasons import Reason
from tests.unit.relocation.simulation import host, run


def test_a_process_that_exits_in_mid_move_is_no_failure() -> None:
    backend = host([0] * 10)

    def move(work: Move) -> None:
        backend.end_process(100)
        work.sweep()

    report = run(backend, strategies={"late": move}, strategy="late")
    assert report.outcome is Outcome.NOTHING_TO_DO
    assert report.processes[0].error


@given(
    left=st.integers(0, 1 << 20),
    reasons=st.dictionaries(st.sampled_from(list(Reason)), st.integers(0, 1 << 20)),
)
def test_reasons_always_add_up(left: int, reasons: dict[str, int]) -> None:
    explained = explain(left, reasons, Reason.APPEARED)
    assert sum(explained.values()) == left
    assert all(size > 0 for size in explained.values())


def test_bytes_that_moved_with_other_pages_are_counted() -> None:
    """If two areas have parts of one huge page, the first area's sweep moves all of it."""
    backend = host([0] * 8, [0] * 4 + [2] * 4)

    def move(work: Move) -> None:
        (process,) = work.processes
        second = process.selection.selected[1].area
        process.target.sweep(
            second, second.start, second.end, {0: 2}, shared=False, limits=Limits()
        )
        work.sweep()

    report = run(backend, strategies={"along": move}, strategy="along")
    assert report.outcome is Outcome.COMPLETE
    assert report.bytes_moved == 12 * PAGE


@pytest.mark.parametrize(
    ("moved", "by_reason", "outcome"),
    [
        (0, {}, Outcome.NOTHING_TO_DO),
        (1 << 20, {}, Outcome.COMPLETE),
        (1 << 20, {"EBUSY": 4096}, Outcome.PARTIAL),
        (1 << 20, {"appeared": 64 << 10}, Outcome.COMPLETE),
        (1 << 20, {"appeared": (64 << 10) + 1}, Outcome.PARTIAL),
        (1 << 30, {"appeared": 1 << 20}, Outcome.COMPLETE),
        (1 << 30, {"appeared": 1 << 21}, Outcome.PARTIAL),
        (0, {"appeared": 4096}, Outcome.PARTIAL),
    ],
)
def test_a_busy_job_may_leave_a_little(
    moved: int, by_reason: dict[str, int], outcome: Outcome
) -> None:
    assert judge(moved, by_reason, None) is outcome
    assert judge(moved, by_reason, "out of coffee") is Outcome.FAILED
