"""Memory that the request leaves alone."""

from __future__ import annotations

from schedhook.backends.simulated import PAGE, SimulatedArea, SimulatedBackend
from schedhook.values.model import MemoryKind, Outcome, Shared
from tests.unit.relocation.simulation import AT, host, run


def test_kinds_that_were_not_requested_stay_and_are_reported() -> None:
    backend = host([0] * 10, kind=MemoryKind.SHMEM, name="x")
    report = run(backend, kinds=frozenset({MemoryKind.ANON}))
    assert report.outcome is Outcome.NOTHING_TO_DO
    assert report.kept == {"shmem": 10 * PAGE}


def test_shared_pages_stay_on_request() -> None:
    backend = SimulatedBackend()
    for pid in (100, 101):
        backend.add_process(pid, areas=[SimulatedArea(start=AT, nodes=[0] * 5, name="segment")])
    report = run(backend, shared=Shared.NONE)
    assert report.left_by_reason == {"shared": 5 * PAGE}
