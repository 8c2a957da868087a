"""Which failures are retried, and how failures are counted."""

from __future__ import annotations

import errno

import pytest

from schedhook.backends.simulated import PAGE
from schedhook.values.model import Outcome
from tests.unit.relocation.simulation import AT, STRATEGIES, host, residency, run


def test_busy_pages_are_retried_until_they_move() -> None:
    backend = host([0] * 10)
    backend.fail(100, AT + 3 * PAGE, [errno.EBUSY, errno.EBUSY])
    report = run(backend)
    assert (report.outcome, report.attempts) == (Outcome.COMPLETE, 3)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_pages_that_never_move_are_counted(strategy: str) -> None:
    backend = host([0] * 10)
    backend.fail(100, AT, always=errno.EBUSY)
    backend.fail(100, AT + 5 * PAGE, always=errno.EACCES)
    report = run(backend, strategy=strategy)
    assert report.outcome is Outcome.PARTIAL
    assert report.left_by_reason == {"EBUSY": PAGE, "shared": PAGE}
    assert residency(backend) == {0: 2, 2: 8}


def test_remapped_pages_are_retried() -> None:
    backend = host([0] * 10)
    backend.fail(100, AT, [errno.EFAULT, 0])
    report = run(backend)
    assert (report.outcome, report.attempts) == (Outcome.COMPLETE, 2)


def test_permanent_failures_are_not_retried() -> None:
    backend = host([0] * 10)
    backend.fail(100, AT, [errno.EACCES, 0])
    report = run(backend)
    assert (report.attempts, report.left_by_reason) == (1, {"shared": PAGE})
