"""Overrides: reapplied if the scheduler undoes them, dropped if another process moves the job."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from schedhook.agent import overrides
from schedhook.roles.request import Request
from schedhook.values.errors import RefusedError
from schedhook.values.model import (
    Placement,
    PlacementOverride,
    Report,
)
from schedhook.values.sets import CpuSet, NodeSet
from tests.unit.agent.one_job import OneJob, at
from tests.unit.agentkit import (
    FakeScheduler,
    event,
    homes,
)


def overridden(one: OneJob, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Give the job an override of 2-3; return what is reapplied."""
    reapplied: list[str] = []

    def reapply(
        _self: object,
        job: str,
        override: PlacementOverride,
        relocate: Callable[..., Report],
        homes: dict[str, Placement],
    ) -> str:
        reapplied.append(f"{job}: {override.placement.cpus}")
        assert (homes["0.0"], homes["0.1"]) == (at("2", "2"), at("3", "3"))
        relocate(Request(sources=NodeSet({0}), destinations=NodeSet({2})))
        one.put("2", "3", "3")
        return "put back"

    monkeypatch.setattr(FakeScheduler, "can_reapply", True)
    monkeypatch.setattr(FakeScheduler, "reapply", reapply, raising=False)
    one.put("2", "3")
    one.look()
    one.moves.requests.clear()
    one.journal.overrides.set(
        "fake", "1", PlacementOverride(was=at("0-1", "0-1"), placement=at("2-3", "2-3"))
    )
    return reapplied


def test_an_override_that_the_scheduler_undid_is_reapplied(
    one: OneJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    reapplied = overridden(one, monkeypatch)
    one.put("0", "1", "0")  # a step has started, and all is as the scheduler knows it
    assert one.look("attach") == "put back"
    kept = one.journal.overrides.get("fake", "1")
    assert kept is not None
    assert not kept.under_way
    assert reapplied == ["1: 2-3"]
    assert len(one.moves.requests) == 1, "nothing follows back"
    assert homes(one.journal, "fake", "1")["0.2"] == at("3", "3")
    assert one.look() == "all in place"


def test_an_override_waits_for_a_step_that_starts_but_not_forever(
    one: OneJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What Slurm has yet to bind could not be bound any more."""
    reapplied = overridden(one, monkeypatch)
    clock, starting = [100.0], [True]
    monkeypatch.setattr(overrides.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(FakeScheduler, "starting", lambda *_: starting[0], raising=False)
    one.put("0", "1", "0")

    def look() -> tuple[str, bool]:
        handled = one.dispatcher.handle(event("look"), 3.0)
        return handled.summary, handled.retry_after is not None

    waiting = ("waiting for a step to start", True)
    assert look() == waiting
    clock[0] += 29
    assert look() == waiting
    assert (reapplied, one.moves.requests) == ([], []), "nothing follows back"
    starting[0] = False
    assert look() == ("put back", False)
    one.put("0", "1", "0")
    starting[0] = True
    assert look() == waiting, "another step has its own time"
    clock[0] += 30
    assert look() == ("put back", False)


def test_a_step_that_starts_while_an_override_is_reapplied_is_waited_for(
    one: OneJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    reapplied = overridden(one, monkeypatch)
    again = FakeScheduler.reapply  # type: ignore[attr-defined]
    starting = [False]

    def refuse(*_: object) -> str:
        starting[0] = True
        raise RefusedError("step 1 of the job is starting")

    monkeypatch.setattr(FakeScheduler, "starting", lambda *_: starting[0], raising=False)
    monkeypatch.setattr(FakeScheduler, "reapply", refuse)
    one.put("0", "1", "0")
    handled = one.dispatcher.handle(event("look"), 3.0)
    assert (handled.summary, handled.ok) == ("waiting for a step to start", True)
    assert handled.retry_after is not None
    monkeypatch.setattr(FakeScheduler, "reapply", again)
    starting[0] = False
    assert one.look().startswith("put back")
    assert reapplied == ["1: 2-3"]


def test_what_was_interrupted_is_finished_even_if_tasks_are_in_place(
    one: OneJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    reapplied = overridden(one, monkeypatch)
    override = PlacementOverride(
        was=at("0-1", "0-1"), placement=at("2-3", "2-3"), leaving=CpuSet({0, 1})
    )
    one.journal.overrides.set("fake", "1", override)
    assert one.look() == "put back; which finishes what was interrupted"
    assert reapplied == ["1: 2-3"]
    kept = one.journal.overrides.get("fake", "1")
    assert kept is not None
    assert kept.leaving is None
    assert one.look() == "all in place"


def test_a_reapplication_that_was_interrupted_is_finished(
    one: OneJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bindings may be right already, and cpusets still wide."""
    reapplied = overridden(one, monkeypatch)
    again = FakeScheduler.reapply  # type: ignore[attr-defined]

    def crash(*_: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(FakeScheduler, "can_reapply", True)
    monkeypatch.setattr(FakeScheduler, "reapply", crash)
    one.put("0", "1", "0")
    with pytest.raises(KeyboardInterrupt):
        one.look("attach")
    assert homes(one.journal, "fake", "1")["0.2"] == at("0", "0"), "where its memory is"
    monkeypatch.setattr(FakeScheduler, "can_reapply", True)
    monkeypatch.setattr(FakeScheduler, "reapply", again)
    one.put("2", "3", "2")
    assert one.look() == "put back; which finishes what was interrupted"
    assert reapplied == ["1: 2-3"]
    assert one.look() == "all in place"


def test_an_override_that_is_released_meanwhile_does_not_come_back(
    one: OneJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    overridden(one, monkeypatch)

    def reapply(*_: object) -> str:
        one.journal.overrides.release("fake", "1")
        return "put back"

    monkeypatch.setattr(FakeScheduler, "can_reapply", True)
    monkeypatch.setattr(FakeScheduler, "reapply", reapply)
    one.put("0", "1")
    one.look()
    assert one.journal.overrides.get("fake", "1") is None


def test_an_override_that_holds_needs_nothing(one: OneJob, monkeypatch: pytest.MonkeyPatch) -> None:
    reapplied = overridden(one, monkeypatch)
    one.put("3", "2")
    one.look()
    assert reapplied == []
    assert one.moves.pairs == [{2: 3}, {3: 2}]


def test_an_override_is_dropped_if_another_process_moves_the_job(
    one: OneJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    reapplied = overridden(one, monkeypatch)
    one.put("4", "5")
    assert "override dropped" in one.look()
    assert reapplied == []
    assert one.moves.pairs == [{2: 4}, {3: 5}]
    assert one.journal.overrides.get("fake", "1") is None
