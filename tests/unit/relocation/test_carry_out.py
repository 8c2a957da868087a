"""Observers, and strategies that fail."""

from __future__ import annotations

from dataclasses import replace

import pytest

from schedhook.backends.simulated import PAGE
from schedhook.migration.move import Move
from schedhook.plugins.loading import load_plugins
from schedhook.relocation.pipeline import relocate
from schedhook.roles.request import Request
from schedhook.values.model import Outcome
from schedhook.values.nodemap import parse_map
from tests.unit.relocation.simulation import QUICK, Plug, host, residency, run


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


def test_observers_see_the_report() -> None:
    plug = Plug(host([0] * 3))
    plugins = load_plugins(QUICK, extra=[plug], environ={})
    report = relocate(Request(pids=(100,), node_map=parse_map("0:2")), QUICK, plugins)
    assert [replace(seen, seconds=0) for seen in plug.reports] == [replace(report, seconds=0)]
