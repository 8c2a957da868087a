"""Which processes belong to a request, and which pids have become those of others."""

from __future__ import annotations

from typing import Any

import pytest

from schedhook.backends.simulated import PAGE, SimulatedArea, SimulatedBackend
from schedhook.migration.move import Move
from schedhook.relocation import pipeline
from schedhook.values.errors import (
    KernelThreadError,
)
from schedhook.values.model import Outcome
from tests.unit.relocation.simulation import AT, host, residency, run


class WithKernelThread(SimulatedBackend):
    def attach(self, pid: int) -> Any:
        if pid == 2:
            raise KernelThreadError("process 2 is a kernel thread")
        return super().attach(pid)


def test_kernel_threads_are_passed_over_unless_named() -> None:
    backend = WithKernelThread()
    backend.add_process(100, areas=[SimulatedArea(start=AT, nodes=[0] * 4)])
    backend.add_cgroup("/job", [2, 100])
    with pytest.raises(KernelThreadError):
        run(backend, pids=(2, 100))
    assert run(backend, pids=(2, 100), job="7", dry_run=True).bytes_planned == 4 * PAGE
    assert run(backend, pids=(), cgroup="/job").outcome is Outcome.COMPLETE


def test_a_newcomer_that_reuses_a_pid_is_moved_too() -> None:
    backend = host([0] * 10)
    backend.add_cgroup("/job", [100])

    def move(work: Move) -> None:
        work.sweep()
        if residency(backend) == {2: 10}:
            backend.end_process(100)
            backend.add_process(100, areas=[SimulatedArea(start=AT, nodes=[0] * 4)])

    report = run(backend, pids=(), cgroup="/job", strategies={"slow": move}, strategy="slow")
    assert (report.outcome, report.bytes_moved) == (Outcome.COMPLETE, 14 * PAGE)
    assert residency(backend) == {2: 4}
    told = [(each.bytes_moved, each.error is None) for each in report.processes]
    assert told == [(4 * PAGE, True), (10 * PAGE, False)]


def test_a_pid_that_left_the_cgroup_before_it_was_held_is_ignored() -> None:
    backend = host([0] * 10)
    backend.add_process(101, areas=[SimulatedArea(start=AT, nodes=[0] * 4)])
    backend.add_cgroup("/job", [100])
    listed = iter([[100, 101]])
    tell = backend.cgroup_pids
    backend.cgroup_pids = lambda path: next(listed, None) or tell(path)  # type: ignore[method-assign]
    report = run(backend, pids=(), cgroup="/job")
    assert [each.pid for each in report.processes] == [100]
    assert residency(backend, 101) == {0: 4}


def test_a_pid_that_left_the_job_is_ignored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The caller found the job's processes some time before the request."""
    backend = host([0] * 10)
    backend.add_process(101, areas=[SimulatedArea(start=AT, nodes=[0] * 4)])
    monkeypatch.setattr(pipeline, "find_pids", lambda *_: (100,))
    report = run(backend, pids=(100, 101), job="7", scheduler="slurm")
    assert [each.pid for each in report.processes] == [100]
    assert residency(backend, 101) == {0: 4}
