"""Which failures are retried, and how failures are counted."""

from __future__ import annotations

import errno
import threading

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


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("most", [0, 1])
def test_fewer_threads_than_wanted_do_the_work(
    monkeypatch: pytest.MonkeyPatch, strategy: str, most: int
) -> None:
    """RLIMIT_NPROC, pids.max: pthread_create(3) fails."""
    start = threading.Thread.start
    started = 0

    def limited(thread: threading.Thread) -> None:
        nonlocal started
        started += 1
        if started > most:
            raise RuntimeError("can't start new thread")
        start(thread)

    backend = host([0] * 10, [0] * 10, [1] * 10)
    monkeypatch.setattr(threading.Thread, "start", limited)
    report = run(backend, strategy=strategy, threads=4)
    assert report.outcome is Outcome.COMPLETE, report.notes
    assert residency(backend) == {2: 20, 1: 10}
    assert started > most
