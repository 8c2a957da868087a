"""Processes that keep the lock of their memory are left out of a relocation."""

from __future__ import annotations

from typing import Any

import pytest

from schedhook.backends.simulated import PAGE, SimulatedArea, SimulatedBackend
from schedhook.backends.simulated.target import SimulatedTarget
from schedhook.values.errors import NotAnsweringError
from schedhook.values.model import Outcome
from schedhook.values.report_json import report_to_dict
from tests.unit.relocation.simulation import AT, STRATEGIES, residency, run

SILENT, OTHER = 100, 200
WHY = "process 100 does not answer"


@pytest.fixture
def after(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How many calls of a method the process answers, before it no longer does."""
    left: dict[str, int] = {}

    def given_up(self: SimulatedTarget) -> str | None:
        return WHY if self.pid == SILENT and min(left.values()) < 0 else None

    monkeypatch.setattr(SimulatedTarget, "no_answer", property(given_up))

    def limit(name: str) -> None:
        original = getattr(SimulatedTarget, name)

        def method(self: SimulatedTarget, *args: Any, **more: Any) -> object:
            if self.pid == SILENT and name in left:
                left[name] -= 1
                if left[name] < 0:
                    raise NotAnsweringError(WHY)
            return original(self, *args, **more)

        monkeypatch.setattr(SimulatedTarget, name, method)

    for name in ("areas", "sweep", "migrate", "locate", "survey"):
        limit(name)
    return left


def two_processes() -> SimulatedBackend:
    backend = SimulatedBackend()
    for pid in (SILENT, OTHER):
        backend.add_process(pid, areas=[SimulatedArea(start=AT, nodes=[0] * 8)])
    return backend


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_others_move(after: dict[str, int], strategy: str) -> None:
    after["areas"] = 0
    backend = two_processes()
    plan = run(backend, pids=(SILENT, OTHER), strategy=strategy, dry_run=True)
    assert (plan.outcome, plan.not_answering) == (Outcome.PLANNED, (SILENT,))
    assert plan.bytes_planned == 8 * PAGE

    report = run(backend, pids=(SILENT, OTHER), strategy=strategy)
    assert (report.outcome, report.not_answering) == (Outcome.PARTIAL, (SILENT,))
    assert residency(backend, OTHER) == {2: 8}
    errors = {each["pid"]: each["error"] for each in report_to_dict(report)["processes"]}
    assert errors == {SILENT: WHY, OTHER: None}
    assert report.notes.count(WHY) == 1
    assert not any("another program" in note for note in report.notes)


@pytest.mark.parametrize(
    ("strategy", "call"), [*zip(STRATEGIES, ("sweep", "migrate"), strict=True)]
)
def test_one_that_stops_answering_during_the_move(
    after: dict[str, int], strategy: str, call: str
) -> None:
    after[call] = 0
    backend = two_processes()
    report = run(backend, pids=(SILENT, OTHER), strategy=strategy)
    assert (report.outcome, report.not_answering) == (Outcome.PARTIAL, (SILENT,))
    assert residency(backend, OTHER) == {2: 8}
    assert WHY in report.notes


def test_alone_it_leaves_nothing_to_do_but_is_not_complete(after: dict[str, int]) -> None:
    after["areas"] = 0
    report = run(two_processes(), pids=(SILENT,))
    assert (report.outcome, report.not_answering) == (Outcome.PARTIAL, (SILENT,))
    assert report.bytes_planned == 0
