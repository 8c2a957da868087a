"""Options and observers, driven from the test kit."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from schedhook import MigrationRefused, StrategyPlugin, hookimpl
from schedhook.migration.move import Move
from schedhook.testing import SimulatedArea, SimulatedBackend, relocate_simulated, send_event
from schedhook.values.errors import ConfigError
from schedhook.values.model import Event, Outcome, Plan, Report

BAD = Path(__file__).parents[2] / "plugins_bad"


@pytest.fixture
def bad_observer(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A plug-in that fails in every observer hook."""
    monkeypatch.syspath_prepend(BAD)
    monkeypatch.delitem(sys.modules, "bad_observer", raising=False)
    return __import__("bad_observer")


@pytest.fixture
def backend() -> SimulatedBackend:
    backend = SimulatedBackend()
    backend.add_process(100, areas=[SimulatedArea(start=0x10000, nodes=[0] * 5)])
    return backend


class Observer:
    """Keeps the names of the plug-in hooks that were called, with their arguments."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, object]] = []

    @hookimpl
    def schedhook_event(self, event: Event) -> None:
        self.seen.append(("event", event))

    @hookimpl
    def schedhook_job_started(self, event: Event) -> None:
        self.seen.append(("started", event))

    @hookimpl
    def schedhook_job_ended(self, event: Event) -> None:
        self.seen.append(("ended", event))

    @hookimpl
    def schedhook_before_migrate(self, plan: Plan) -> None:
        self.seen.append(("before", plan.bytes_planned))

    @hookimpl
    def schedhook_after_migrate(self, report: Report) -> None:
        self.seen.append(("after", report.bytes_moved))


class Optional:
    """A strategy that keeps the options it is given."""

    def __init__(self) -> None:
        self.settings: list[object] = []

    def move(self, work: Move) -> None:
        self.settings.append(dict(work.plugin_options))
        work.sweep()

    @hookimpl
    def schedhook_strategies(self) -> list[StrategyPlugin]:
        return [StrategyPlugin(name="optional", summary="for a test", move=self.move)]


def event(point: str, scheduler: str = "slurm") -> Event:
    return Event(scheduler=scheduler, point=point, job="7")


def test_options_reach_the_strategy(backend: SimulatedBackend) -> None:
    strategy = Optional()
    relocate_simulated(
        backend, strategy, strategy="optional", options={"optional": {"depth": 3}, "cpuset": {}}
    )
    assert strategy.settings == [{"depth": 3}]


def test_options_are_those_of_the_fixture_too(
    backend: SimulatedBackend,
    schedhook_backend: SimulatedBackend,
    schedhook_relocate: Callable[..., Report],
) -> None:
    schedhook_backend.add_process(100, areas=[SimulatedArea(start=0x10000, nodes=[0] * 5)])
    strategy = Optional()
    schedhook_relocate(strategy, strategy="optional", options={"optional": {"depth": 1}})
    assert strategy.settings == [{"depth": 1}]
    assert backend.pids() == (100,)


def test_options_of_an_unknown_name_are_an_error(backend: SimulatedBackend) -> None:
    with pytest.raises(ConfigError, match=r"plugins\.options\.optionall: .*did you mean optional"):
        relocate_simulated(backend, Optional(), options={"optionall": {}})


def test_a_relocation_is_observed(backend: SimulatedBackend) -> None:
    observer = Observer()
    relocate_simulated(backend, observer)
    assert observer.seen == [("before", 5 * 4096), ("after", 5 * 4096)]


@pytest.mark.parametrize(
    ("point", "scheduler", "seen"),
    [
        ("prolog", "slurm", ["event", "started"]),
        ("epilog", "slurm", ["event", "ended"]),
        ("begin", "pbs", ["event", "started"]),
        ("resize", "pbs", ["event"]),
        ("periodic", "pbs", []),
        ("epilog", "lsf", ["event", "ended"]),
        ("party", "lsf", ["event"]),
    ],
)
def test_an_event_is_observed(point: str, scheduler: str, seen: list[str]) -> None:
    observer = Observer()
    sent = event(point, scheduler)
    send_event(sent, observer)
    assert observer.seen == [(name, sent) for name in seen]


@pytest.mark.parametrize("point", ["prolog", "epilog", "job-migrate"])
def test_an_observer_that_fails_at_an_event_fails_the_test(
    bad_observer: ModuleType, point: str
) -> None:
    with pytest.raises(AssertionError, match=r"bad_observer \(given\): schedhook_event failed: "):
        send_event(event(point), bad_observer)


def test_an_observer_that_fails_in_a_relocation_fails_the_test(
    bad_observer: ModuleType, backend: SimulatedBackend
) -> None:
    with pytest.raises(AssertionError, match="schedhook_before_migrate failed: ZeroDivisionError"):
        relocate_simulated(backend, bad_observer)


def test_a_refusal_is_not_a_failure(backend: SimulatedBackend) -> None:
    class Refuses:
        @hookimpl
        def schedhook_before_migrate(self, plan: Plan) -> None:
            raise MigrationRefused(f"not {plan.bytes_planned} bytes")

    report = relocate_simulated(backend, Refuses())
    assert report.outcome is Outcome.REFUSED
    assert "Refuses (given): not 20480 bytes" in report.notes
