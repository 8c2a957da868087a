"""Following: memory moves to the nodes of its tasks, whatever interrupts it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from schedhook.agent.dispatcher import Dispatcher
from schedhook.agent.events import make_retry
from schedhook.journal.errors import JobLockedError
from schedhook.roles.request import Request
from schedhook.roles.scheduler import JobDescription
from schedhook.values.actions import OnRelocation
from schedhook.values.config import Config
from schedhook.values.errors import ProcessGoneError
from schedhook.values.model import (
    Outcome,
    Placement,
    Report,
)
from tests.unit.agent.one_job import ME, PARENT, OneJob, at, interrupt
from tests.unit.agentkit import (
    FakeScheduler,
    Moves,
    event,
    homes,
    place,
    with_actions,
)


def test_a_first_look_moves_nothing(one: OneJob) -> None:
    assert one.moves.requests == []
    assert homes(one.journal, "fake", "1") == {"0.0": at("0", "0"), "0.1": at("1", "1")}
    assert one.look() == "all in place"


def test_what_people_call_the_job_is_recorded_once_it_is_known(one: OneJob) -> None:
    adapter = one.dispatcher.adapter("fake")
    asked = []

    def describe(job: str) -> JobDescription | None:
        asked.append(job)
        return None if len(asked) == 1 else JobDescription(alias="36_2", name="sweep")

    adapter.describe = describe  # type: ignore[method-assign]
    one.look()
    assert one.journal.history("1")[0]["alias"] is None
    one.look()
    one.look()
    (run,) = one.journal.history("36_2")
    assert (run["job"], run["alias"], run["name"]) == ("1", "36_2", "sweep")
    assert len(asked) == 2


def test_every_task_follows_its_own_way(one: OneJob) -> None:
    one.put("2", "3")
    assert "0.0: moved 1.0 MiB 0:2, complete; 0.1: moved 1.0 MiB 1:3, complete" in one.look()
    assert [(request.pids, request.job) for request in one.moves.requests] == [
        ((ME,), "1"),
        ((PARENT,), "1"),
    ]
    assert one.moves.pairs == [{0: 2}, {1: 3}]
    assert homes(one.journal, "fake", "1")["0.0"] == at("2", "2")
    assert len(one.journal.history("1")[0]["reports"]) == 2
    one.look()
    assert len(one.moves.requests) == 2


def test_tasks_with_one_way_go_together(tmp_path: Path) -> None:
    one = OneJob(tmp_path)
    one.put("0", "0")
    one.look()
    one.moves.requests.clear()
    one.put("2", "2")
    one.look()
    assert [request.pids for request in one.moves.requests] == [(ME, PARENT)]


def test_tasks_that_change_places_each_get_their_map(one: OneJob) -> None:
    one.put("1", "0")
    one.look()
    assert one.moves.pairs == [{0: 1}, {1: 0}]


def test_a_task_leaves_a_node_before_another_one_comes(one: OneJob) -> None:
    """What both map would be moved on with the other task's memory."""
    one.put("1", "2")
    one.look()
    assert one.moves.pairs == [{1: 2}, {0: 1}]


def test_memory_stays_when_there_is_only_more_room(one: OneJob) -> None:
    one.put("0,2", "1,3")
    assert one.look() == "all in place"
    one.put("2", "3")
    one.look()
    # {0} → {0,2} → {2}: pages may be on 0 and on 2.
    assert one.moves.pairs == [{0: 2}, {1: 3}]


def test_pages_on_nodes_that_were_only_passed_are_not_left_behind(one: OneJob) -> None:
    one.put("0,2", "1")
    one.look()
    one.put("0", "1")
    one.look()
    assert one.moves.pairs == [{0: 0, 2: 0}]


def test_a_refusal_is_tried_again_and_home_stays_home(one: OneJob) -> None:
    one.moves.outcome = Outcome.REFUSED
    one.put("2", "1")
    handled = one.dispatcher.handle(event("look"), 3.0)
    assert not handled.ok
    assert handled.retry_after == Config().agent.retry_s
    assert homes(one.journal, "fake", "1")["0.0"] == at("0", "0")
    one.moves.outcome = Outcome.COMPLETE
    one.look()
    assert one.moves.pairs[-1] == {0: 2}
    assert homes(one.journal, "fake", "1")["0.0"] == at("2", "2")


@pytest.mark.parametrize("reason", ["EBUSY", "ENOMEM", "appeared", "shared", "unmapped"])
def test_what_stayed_for_a_passing_reason_is_tried_again_for_some_times(
    one: OneJob, reason: str
) -> None:
    one.moves.outcome, one.moves.left = Outcome.PARTIAL, {reason: 4096}
    one.put("2", "1")
    handled, tries = one.dispatcher.handle(event("look"), 3.0), 1
    again = make_retry(event("look"))
    while handled.retry_after is not None:
        assert handled.retry_after == Config().agent.retry_s
        assert f"left ({reason}); what stayed is tried again in 60 s" in handled.summary
        assert homes(one.journal, "fake", "1")["0.0"] == at("0", "0")
        handled, tries = one.dispatcher.handle(again, 3.0), tries + 1
        again = make_retry(again)
    assert one.moves.pairs == [{0: 2}] * tries
    assert tries == (1 if reason in ("shared", "unmapped") else 3)
    assert homes(one.journal, "fake", "1")["0.0"] == at("2", "2")
    assert one.look() == "all in place"


def test_what_stayed_moves_at_the_next_try(one: OneJob) -> None:
    one.moves.outcome, one.moves.left = Outcome.PARTIAL, {"EBUSY": 4096}
    one.put("2", "1")
    one.look()
    one.moves.outcome, one.moves.left = Outcome.COMPLETE, {}
    handled = one.dispatcher.handle(make_retry(event("look")), 4.0)
    assert handled.retry_after is None
    assert homes(one.journal, "fake", "1")["0.0"] == at("2", "2")


def test_none_only_records(tmp_path: Path) -> None:
    one = OneJob(tmp_path, with_actions(on_relocation=OnRelocation.NONE))
    one.put("2", "3")
    one.look()
    assert one.moves.requests == []
    rows = one.journal.history("1")[0]["placements"]
    assert [(row["task"], row["nodes"], row["settled"]) for row in rows[-2:]] == [
        ("0.0", "2", False),
        ("0.1", "3", False),
    ]


def test_a_process_that_went_meanwhile_is_left_out(one: OneJob, tmp_path: Path) -> None:
    place(tmp_path, "1", {"0.0": ([2**22 - 1, ME], "2", "2")})
    one.look()
    assert one.moves.requests[0].pids == (ME,)
    place(tmp_path, "1", {"0.0": ([2**22 - 1], "3", "3")})
    one.look()
    assert len(one.moves.requests) == 1


def test_a_process_that_goes_during_the_move_does_not_stop_the_others(
    tmp_path: Path,
) -> None:
    one = OneJob(tmp_path)
    real = Moves()
    calls = []

    def carry_out(request: Request) -> Report:
        calls.append(request.pids)
        if len(calls) == 1:
            raise ProcessGoneError("gone")
        return real(request)

    dispatcher = Dispatcher(
        Config(),
        one.dispatcher._plugins,
        one.journal,
        carry_out=carry_out,
    )
    one.put("2", "1")
    assert "complete" in dispatcher.handle(event("look"), 3.0).summary
    assert calls == [(ME,), (ME,)]


def test_a_job_that_another_process_holds_is_left_alone(
    one: OneJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> Iterator[None]:
        raise JobLockedError("process 7 is working on job 1")

    monkeypatch.setattr(one.journal.locks, "acquire", refuse)
    one.put("2", "3")
    handled = one.dispatcher.handle(event("look"), 3.0)
    assert one.moves.requests == []
    assert handled.retry_after is not None
    assert not handled.acted, "history gets no row of a look that did nothing"


def test_an_interrupted_relocation_is_finished(one: OneJob) -> None:
    one.put("2", "1")
    interrupt(one)
    one.look()
    assert one.moves.pairs == [{0: 2}]
    assert one.look() == "all in place"


def test_memory_is_looked_for_where_an_interrupted_relocation_may_have_brought_it(
    one: OneJob,
) -> None:
    one.put("2", "1")
    interrupt(one)
    one.put("3", "1")
    one.look()
    assert one.moves.pairs == [{0: 3, 2: 3}]
    one.put("0", "1")
    interrupt(one)
    one.put("3", "1")
    one.look()
    assert one.moves.pairs[1:] == [{0: 3, 3: 3}], "also on the way back"


def test_what_may_have_arrived_already_is_not_moved_on(one: OneJob) -> None:
    """{0,1} → {1,2}, killed on the way: a page on node 1 may be one of node 0's."""
    one.put("0-1", "1")
    one.look()
    one.dispatcher._records.remember("fake", "1", {"0.0": at("0-1", "0-1")}, {})
    one.put("1-2", "1")
    interrupt(one)
    one.look()
    assert one.moves.pairs == [{0: 1}]


def test_bindings_that_a_cpuset_took_are_given_back_before_anything_moves(
    one: OneJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    one.put("2-3", "2-3")
    asked = []

    def rebind(_self: object, job: str, bound: dict[str, Placement]) -> bool:
        asked.append((job, bound))
        one.put("2", "3")
        return True

    monkeypatch.setattr(FakeScheduler, "rebind", rebind, raising=False)
    one.look()
    assert asked == [("1", {"0.0": at("0", "0"), "0.1": at("1", "1")})]
    assert one.moves.pairs == [{0: 2}, {1: 3}]


def test_bindings_that_were_lost_after_an_interrupted_relocation_are_given_back(
    one: OneJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From home to 2 and 3, killed there, and back: no CPU of home was taken away."""
    one.put("2", "3")
    interrupt(one)
    one.put("0-1", "0-1")

    def rebind(_self: object, _job: str, from_: dict[str, Placement]) -> bool:
        if from_["0.0"] != at("2", "2"):
            return False
        one.put("0", "1")
        return True

    monkeypatch.setattr(FakeScheduler, "rebind", rebind, raising=False)
    assert one.look().startswith("tasks bound again")
    assert homes(one.journal, "fake", "1") == {"0.0": at("0", "0"), "0.1": at("1", "1")}


def rebinding(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """How the tasks were bound, each time that the adapter is asked to bind them again."""
    asked: list[dict[str, str]] = []

    def rebind(_self: object, _job: str, bound: dict[str, Placement]) -> bool:
        asked.append({name: str(its.cpus) for name, its in bound.items()})
        return False

    monkeypatch.setattr(FakeScheduler, "rebind", rebind, raising=False)
    return asked


def test_bindings_come_from_one_time_and_not_from_before_and_after_a_kill(
    one: OneJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From 0 and 1 to 2 and 3, killed when one task's memory had moved: by where memory is, the
    second task would stand before the first.
    """
    asked = rebinding(monkeypatch)
    one.put("2", "3")
    interrupt(one, after=1)
    one.put("0-1", "0-1")
    one.look()
    assert asked[-1] == {"0.0": "2", "0.1": "3"}


def test_bindings_are_remembered_while_no_task_is_bound(
    one: OneJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = rebinding(monkeypatch)
    one.put("0-3", "0-3")
    one.look()
    one.put("2-3", "2-3", "1")
    one.look()
    assert asked[-1] == {"0.0": "0", "0.1": "1"}


def test_a_task_that_has_ended_tells_nothing_of_the_others_bindings(
    one: OneJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = rebinding(monkeypatch)
    one.put("0", "1", "3")
    one.look()
    one.put("0-1", "0-1")
    one.look()
    one.look()
    assert asked[-1] == {"0.0": "0", "0.1": "1"}
