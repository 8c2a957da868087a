"""Observers, and strategies that fail."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from schedhook.backends.simulated import PAGE, SimulatedBackend
from schedhook.migration.move import Move
from schedhook.plugins.loading import load_plugins
from schedhook.relocation import carry_out
from schedhook.relocation.pipeline import relocate
from schedhook.roles.backend import Target
from schedhook.roles.request import Request
from schedhook.values.model import Outcome, Policies
from schedhook.values.nodemap import parse_map
from tests.unit.relocation.simulation import AT, QUICK, Plug, host, residency, run


def test_an_observer_may_refuse() -> None:
    backend = host([0] * 10)
    report = run(backend, refusal="maintenance at noon")
    assert report.outcome is Outcome.REFUSED
    assert "maintenance at noon" in report.notes[0]
    assert residency(backend) == {0: 10}


def test_a_failing_observer_does_not_stop_the_move() -> None:
    assert run(host([0] * 10), observer_fails=True).outcome is Outcome.COMPLETE


@pytest.mark.parametrize("error", [ZeroDivisionError("oh"), SystemExit(0)], ids=repr)
def test_a_strategy_that_breaks_is_a_failure_with_what_moved(error: BaseException) -> None:
    backend = host([0] * 10)

    def move(work: Move) -> None:
        work.sweep()
        raise error

    report = run(backend, strategies={"broken": move}, strategy="broken")
    assert report.outcome is Outcome.FAILED
    assert report.bytes_moved == 10 * PAGE
    assert type(error).__name__ in report.notes[-1]


def test_an_error_in_a_later_step_leaves_what_earlier_ones_have_moved() -> None:
    backend = host([0] * 10 + [1] * 5)
    backend.fail(100, AT + 10 * PAGE, always=errno.EBUSY)

    def move(work: Move) -> None:
        if 1 not in work.node_map.moves:
            raise ZeroDivisionError
        work.sweep()

    report = run(backend, node_map="0:1,1:2", strategies={"broken": move}, strategy="broken")
    assert (report.outcome, residency(backend)) == (Outcome.FAILED, {0: 10, 1: 1, 2: 4})
    assert report.bytes_moved == 4 * PAGE
    assert report.left_by_reason == {"aborted": 10 * PAGE, "EBUSY": PAGE}


class Recorder:
    """Records what is done with policies, and where the memory is at that time."""

    def __init__(self, backend: SimulatedBackend) -> None:
        self.backend = backend
        self.seen: list[tuple[str, dict[int, int]]] = []

    def follow(self, targets: Iterable[Target]) -> None:
        assert [target.pid for target in targets] == [100]
        self.seen.append(("follow", residency(self.backend)))

    def undo(self) -> None:
        self.seen.append(("undo", residency(self.backend)))

    def notes(self) -> list[str]:
        return ["policies follow"]


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    backend = host([0] * 10)
    recorder = Recorder(backend)
    monkeypatch.setattr(SimulatedBackend, "is_simulation", False)
    monkeypatch.setattr(carry_out, "Rebinding", lambda *_: recorder)
    return recorder


def test_policies_follow_before_the_move_and_after_it(recorder: Recorder) -> None:
    report = run(recorder.backend, policies=Policies.REBIND)
    assert recorder.seen == [("follow", {0: 10}), ("follow", {2: 10})]
    assert "policies follow" in report.notes


def test_policies_get_their_old_nodes_back_if_the_move_fails(recorder: Recorder) -> None:
    def move(_: Move) -> None:
        raise RuntimeError("oh")

    run(recorder.backend, policies=Policies.REBIND, strategies={"bad": move}, strategy="bad")
    assert recorder.seen == [("follow", {0: 10}), ("undo", {0: 10})]


@pytest.mark.parametrize(
    "request_", [{}, {"policies": Policies.REBIND, "dry_run": True}], ids=["default", "plan"]
)
def test_policies_are_left(recorder: Recorder, request_: dict[str, Any]) -> None:
    run(recorder.backend, **request_)
    assert recorder.seen == []


def test_a_simulation_leaves_the_policies_of_real_processes(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SimulatedBackend, "is_simulation", True)
    run(recorder.backend, policies=Policies.REBIND)
    assert recorder.seen == []


def test_observers_see_the_report() -> None:
    plug = Plug(host([0] * 3))
    plugins = load_plugins(QUICK, extra=[plug], environ={})
    report = relocate(Request(pids=(100,), node_map=parse_map("0:2")), QUICK, plugins)
    assert [replace(seen, seconds=0) for seen in plug.reports] == [replace(report, seconds=0)]
