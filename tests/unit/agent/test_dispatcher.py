"""What is done about events: following, keeping overrides, parking, bringing home."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from schedhook.agent import overrides
from schedhook.agent.dispatcher import Dispatcher
from schedhook.journal.errors import JobLockedError, JournalError
from schedhook.journal.journal import Journal
from schedhook.journal.locks import JobLocks
from schedhook.journal.notes import Notes
from schedhook.journal.overrides import Overrides
from schedhook.journal.placements import Placements
from schedhook.journal.reports import Reports
from schedhook.journal.runs import Runs
from schedhook.plugins.hookspecs import hookimpl
from schedhook.roles.request import Request
from schedhook.roles.scheduler import Task
from schedhook.testing.hosts import FakeNode, write_host, write_process
from schedhook.values.actions import OnRelocation, Repatriate
from schedhook.values.config import Config
from schedhook.values.errors import ProcessGoneError, SchedhookError
from schedhook.values.model import (
    Event,
    NodeMap,
    Outcome,
    Placement,
    PlacementOverride,
    Plan,
    ProcessPlan,
    Report,
)
from schedhook.values.sets import CpuSet, NodeSet
from tests.unit.agentkit import (
    FakeScheduler,
    Moves,
    event,
    homes,
    make_dispatcher,
    place,
    plugins,
    with_actions,
)

ME = os.getpid()
PARENT = os.getppid()


def at(cpus: str, nodes: str) -> Placement:
    return Placement(cpus=CpuSet.parse(cpus), nodes=NodeSet.parse(nodes))


class Set:
    """A dispatcher with one job of two tasks, on nodes 0 and 1."""

    def __init__(self, directory: Path, config: Config | None = None, *more: object) -> None:
        self.directory = directory
        self.moves = Moves()
        self.journal = Journal.in_memory()
        self.dispatcher: Dispatcher = make_dispatcher(
            directory, self.moves, *more, journal=self.journal, config=config
        )
        self.put("0", "1")
        self.dispatcher.handle(event("begin"), 1.0)
        self.dispatcher.handle(event("look"), 2.0)

    def put(self, *nodes: str, job: str = "1") -> None:
        """Give the tasks these nodes; cpu N is on node N."""
        pids = (ME, PARENT, 1)
        tasks = {f"0.{n}": ([pids[n]], where, where) for n, where in enumerate(nodes)}
        place(self.directory, job, tasks)

    def look(self, point: str = "look", **data: Any) -> str:
        return self.dispatcher.handle(event(point, **data), 3.0).summary


@pytest.fixture
def one(tmp_path: Path) -> Set:
    return Set(tmp_path)


# -- following -------------------------------------------------------------------------------------


def test_a_first_look_moves_nothing(one: Set) -> None:
    assert one.moves.requests == []
    assert homes(one.journal, "fake", "1") == {"0.0": at("0", "0"), "0.1": at("1", "1")}
    assert one.look() == "all in place"


def test_every_task_follows_its_own_way(one: Set) -> None:
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
    one = Set(tmp_path)
    one.put("0", "0")
    one.look()
    one.moves.requests.clear()
    one.put("2", "2")
    one.look()
    assert [request.pids for request in one.moves.requests] == [(ME, PARENT)]


def test_tasks_that_change_places_each_get_their_map(one: Set) -> None:
    one.put("1", "0")
    one.look()
    assert one.moves.pairs == [{0: 1}, {1: 0}]


def test_memory_stays_when_there_is_only_more_room(one: Set) -> None:
    one.put("0,2", "1,3")
    assert one.look() == "all in place"
    one.put("2", "3")
    one.look()
    # {0} → {0,2} → {2}: pages may be on 0 and on 2.
    assert one.moves.pairs == [{0: 2}, {1: 3}]


def test_pages_on_nodes_that_were_only_passed_are_not_left_behind(one: Set) -> None:
    one.put("0,2", "1")
    one.look()
    one.put("0", "1")
    one.look()
    assert one.moves.pairs == [{0: 0, 2: 0}]


def test_a_refusal_is_tried_again_and_home_stays_home(one: Set) -> None:
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


def test_what_could_not_go_is_tried_when_another_job_ends(one: Set) -> None:
    one.moves.outcome = Outcome.REFUSED
    one.put("2", "1")
    one.look()
    one.dispatcher.handle(event("begin", "2"), 4.0)
    handled = one.dispatcher.handle(event("end", "2"), 5.0)
    assert [(each.job, each.point) for each in handled.more] == [("1", "look")]


def test_an_end_bothers_no_job_that_is_in_place(one: Set) -> None:
    one.dispatcher.handle(event("begin", "2"), 4.0)
    assert one.dispatcher.handle(event("end", "2"), 5.0).more == ()


def test_none_only_writes_down(tmp_path: Path) -> None:
    one = Set(tmp_path, with_actions(on_relocation=OnRelocation.NONE))
    one.put("2", "3")
    one.look()
    assert one.moves.requests == []
    rows = one.journal.history("1")[0]["placements"]
    assert [(row["task"], row["nodes"], row["settled"]) for row in rows[-2:]] == [
        ("0.0", "2", False),
        ("0.1", "3", False),
    ]


def test_a_process_that_went_meanwhile_is_left_out(one: Set, tmp_path: Path) -> None:
    place(tmp_path, "1", {"0.0": ([2**22 - 1, ME], "2", "2")})
    one.look()
    assert one.moves.requests[0].pids == (ME,)
    place(tmp_path, "1", {"0.0": ([2**22 - 1], "3", "3")})
    one.look()
    assert len(one.moves.requests) == 1


def test_a_process_that_goes_during_the_move_does_not_stop_the_others(
    tmp_path: Path,
) -> None:
    one = Set(tmp_path)
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
    one: Set, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> Iterator[None]:
        raise JobLockedError("process 7 is working on job 1")

    monkeypatch.setattr(one.journal.locks, "acquire", refuse)
    one.put("2", "3")
    handled = one.dispatcher.handle(event("look"), 3.0)
    assert one.moves.requests == []
    assert handled.retry_after is not None


def interrupt(one: Set, after: int = 0) -> None:
    """A look that ends with the process, in the middle of its relocation number `after`."""
    ways = iter([one.moves] * after)

    def crash(request: Request) -> Report:
        for move in ways:
            return move(request)
        raise KeyboardInterrupt

    dispatcher = Dispatcher(Config(), one.dispatcher._plugins, one.journal, carry_out=crash)
    with pytest.raises(KeyboardInterrupt):
        dispatcher.handle(event("look"), 3.0)


def test_an_interrupted_relocation_is_finished(one: Set) -> None:
    one.put("2", "1")
    interrupt(one)
    one.look()
    assert one.moves.pairs == [{0: 2}]
    assert one.look() == "all in place"


def test_memory_is_looked_for_where_an_interrupted_relocation_may_have_brought_it(
    one: Set,
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


def test_what_may_have_arrived_already_is_not_moved_on(one: Set) -> None:
    """{0,1} → {1,2}, killed on the way: a page on node 1 may be one of node 0's."""
    one.put("0-1", "1")
    one.look()
    one.dispatcher._records.remember("fake", "1", {"0.0": at("0-1", "0-1")}, {})
    one.put("1-2", "1")
    interrupt(one)
    one.look()
    assert one.moves.pairs == [{0: 1}]


def test_an_event_without_a_job_looks_at_every_job(one: Set) -> None:
    one.put("0", job="2")
    handled = one.dispatcher.handle(event("periodic", ""), 3.0)
    assert sorted(each.job for each in handled.more) == ["1", "2"]


def test_what_comes_after_a_jobs_end_does_not_open_it_again(one: Set) -> None:
    one.look("end")
    one.put("2", "3")
    assert one.look() == "the job has ended"
    assert one.moves.requests == []
    assert len(one.journal.history()) == 1


# -- adapters' own ---------------------------------------------------------------------------------


def test_bindings_that_a_cpuset_took_are_given_back_before_anything_moves(
    one: Set, monkeypatch: pytest.MonkeyPatch
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
    one: Set, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From home to 2 and 3, killed there, and back: nobody took away a processor of home."""
    one.put("2", "3")
    interrupt(one)
    one.put("0-1", "0-1")

    def rebind(_self: object, _job: str, from_: dict[str, Placement]) -> bool:
        if from_["0.0"] != at("2", "2"):
            return False
        one.put("0", "1")
        return True

    monkeypatch.setattr(FakeScheduler, "rebind", rebind, raising=False)
    assert one.look().startswith("tasks bound anew")
    assert homes(one.journal, "fake", "1") == {"0.0": at("0", "0"), "0.1": at("1", "1")}


def rebinding(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """How the tasks were bound, each time that the adapter is asked to bind them anew."""
    asked: list[dict[str, str]] = []

    def rebind(_self: object, _job: str, bound: dict[str, Placement]) -> bool:
        asked.append({name: str(its.cpus) for name, its in bound.items()})
        return False

    monkeypatch.setattr(FakeScheduler, "rebind", rebind, raising=False)
    return asked


def test_bindings_come_from_one_time_and_not_from_before_and_after_a_kill(
    one: Set, monkeypatch: pytest.MonkeyPatch
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


def test_bindings_are_remembered_while_nobody_is_bound(
    one: Set, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = rebinding(monkeypatch)
    one.put("0-3", "0-3")
    one.look()
    one.put("2-3", "2-3", "1")
    one.look()
    assert asked[-1] == {"0.0": "0", "0.1": "1"}


def test_a_task_that_has_ended_tells_nothing_of_the_others_bindings(
    one: Set, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = rebinding(monkeypatch)
    one.put("0", "1", "3")
    one.look()
    one.put("0-1", "0-1")
    one.look()
    one.look()
    assert asked[-1] == {"0.0": "0", "0.1": "1"}


def wish_for(one: Set, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The job was relocated to 2-3, and that is to last. Who is asked to reapply it."""
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


def test_a_wish_that_the_scheduler_undid_is_enforced(
    one: Set, monkeypatch: pytest.MonkeyPatch
) -> None:
    reapplied = wish_for(one, monkeypatch)
    one.put("0", "1", "0")  # a step has started, and all is as the scheduler knows it
    assert one.look("attach") == "put back"
    kept = one.journal.overrides.get("fake", "1")
    assert kept is not None
    assert not kept.under_way
    assert reapplied == ["1: 2-3"]
    assert len(one.moves.requests) == 1, "nothing follows back"
    assert homes(one.journal, "fake", "1")["0.2"] == at("3", "3")
    assert one.look() == "all in place"


def test_a_wish_waits_for_a_step_that_starts_but_not_for_ever(
    one: Set, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What Slurm has yet to bind could not be bound any more."""
    reapplied = wish_for(one, monkeypatch)
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


def test_what_was_interrupted_is_finished_even_where_tasks_are_in_place(
    one: Set, monkeypatch: pytest.MonkeyPatch
) -> None:
    reapplied = wish_for(one, monkeypatch)
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


def test_making_a_wish_hold_again_is_finished_where_it_was_interrupted(
    one: Set, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bindings may be right already, and cpusets still wide."""
    reapplied = wish_for(one, monkeypatch)
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


def test_a_wish_that_is_released_meanwhile_does_not_come_back(
    one: Set, monkeypatch: pytest.MonkeyPatch
) -> None:
    wish_for(one, monkeypatch)

    def reapply(*_: object) -> str:
        one.journal.overrides.release("fake", "1")
        return "put back"

    monkeypatch.setattr(FakeScheduler, "can_reapply", True)
    monkeypatch.setattr(FakeScheduler, "reapply", reapply)
    one.put("0", "1")
    one.look()
    assert one.journal.overrides.get("fake", "1") is None


def test_a_wish_that_holds_needs_nothing(one: Set, monkeypatch: pytest.MonkeyPatch) -> None:
    reapplied = wish_for(one, monkeypatch)
    one.put("3", "2")
    one.look()
    assert reapplied == []
    assert one.moves.pairs == [{2: 3}, {3: 2}]


def test_a_wish_gives_way_to_somebody_who_moves_the_job_elsewhere(
    one: Set, monkeypatch: pytest.MonkeyPatch
) -> None:
    reapplied = wish_for(one, monkeypatch)
    one.put("4", "5")
    assert "override dropped" in one.look()
    assert reapplied == []
    assert one.moves.pairs == [{2: 4}, {3: 5}]
    assert one.journal.overrides.get("fake", "1") is None


# -- suspension ------------------------------------------------------------------------------------


@pytest.fixture
def parking(tmp_path: Path) -> Set:
    return Set(tmp_path, with_actions(park=NodeSet.parse("2-3")))


def test_parked_memory_comes_back_to_where_it_was(
    parking: Set, monkeypatch: pytest.MonkeyPatch
) -> None:
    parking.put("0-1", "1")
    parking.look()
    monkeypatch.setattr(FakeScheduler, "suspended", lambda *_: True)
    parking.look("postsuspend")
    assert parking.moves.pairs == [{0: 2, 1: 3}, {1: 2}]
    parking.look("postsuspend")
    assert parking.look() == "all in place"
    assert parking.look("resize") == "parked: nothing moves before the job resumes"
    assert len(parking.moves.requests) == 2, "parked once"
    parking.moves.requests.clear()
    parking.look("preresume")
    assert parking.moves.pairs == [{2: 0, 3: 1}, {2: 1}]
    parking.moves.requests.clear()
    parking.look("resumed")
    assert parking.moves.requests == []


def test_a_resume_that_was_missed_is_made_up_for_by_a_look(parking: Set) -> None:
    parking.look("postsuspend")
    parking.moves.requests.clear()
    parking.look()
    assert parking.moves.pairs == [{2: 0}, {2: 1}]


def test_no_two_nodes_are_parked_on_one(tmp_path: Path) -> None:
    one = Set(tmp_path, with_actions(park=NodeSet({3})))
    one.put("0,2", "1")
    one.look()
    summary = one.look("postsuspend")
    assert summary.startswith("0.0: not parked: nodes 0,2 need a node each, and there are nodes 3")
    assert one.moves.pairs == [{1: 3}]


def test_a_cpuset_is_widened_for_parked_memory_and_restored(
    parking: Set, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def allow_nodes(_self: object, _job: str, nodes: NodeSet) -> bool:
        assert len(parking.moves.requests) == len(calls), "before memory moves"
        calls.append(f"allow {nodes}")
        return True

    monkeypatch.setattr(FakeScheduler, "allow_nodes", allow_nodes)
    monkeypatch.setattr(FakeScheduler, "restore_nodes", lambda *_: calls.append("restore"))
    parking.look("postsuspend")
    assert calls == ["allow 2", "allow 2"]
    parking.moves.outcome = Outcome.PARTIAL
    handled = parking.dispatcher.handle(event("preresume"), 4.0)
    assert handled.retry_after is not None
    assert calls[2:] == [], "narrower than its memory, it might be killed"
    parking.moves.outcome = Outcome.COMPLETE
    parking.look("preresume")
    assert calls[2:] == ["restore"]


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"job": {}}', '{"job": 5}', '{"job": {"home": "0", "park": "x"}}']
)
def test_a_damaged_note_of_what_is_parked_is_met_once(parking: Set, text: str) -> None:
    parking.look("postsuspend")
    parking.journal.notes.set("fake", "1", "parked", text)
    parking.moves.requests.clear()
    for _ in range(2):
        assert parking.look("resumed") == "all in place"
    assert parking.journal.counts().damaged == 1
    assert parking.moves.requests == []


def test_a_job_that_resumes_elsewhere_goes_there(parking: Set) -> None:
    parking.look("postsuspend")
    parking.moves.requests.clear()
    parking.put("5", "6")
    parking.look("preresume")
    assert parking.moves.pairs == [{2: 5}, {2: 6}]
    assert homes(parking.journal, "fake", "1")["0.0"] == at("5", "5")
    assert parking.look() == "all in place"


def test_what_does_not_fit_on_the_parking_nodes_stays(parking: Set) -> None:
    parking.moves.outcome = Outcome.REFUSED
    parking.look("postsuspend")
    parking.moves.requests.clear()
    parking.look("preresume")
    assert parking.moves.requests == []


def test_a_return_that_is_refused_is_tried_again(parking: Set) -> None:
    parking.look("postsuspend")
    parking.moves.outcome = Outcome.REFUSED
    handled = parking.dispatcher.handle(event("preresume"), 4.0)
    assert handled.retry_after is not None
    parking.moves.outcome = Outcome.COMPLETE
    parking.moves.requests.clear()
    parking.look("resumed", again=True)
    assert parking.moves.pairs == [{2: 0}, {2: 1}]


def test_parking_survives_a_crash_in_the_middle(parking: Set) -> None:
    def crash(_request: Request) -> Report:
        raise KeyboardInterrupt

    dispatcher = Dispatcher(
        with_actions(park=NodeSet.parse("2-3")),
        parking.dispatcher._plugins,
        parking.journal,
        carry_out=crash,
    )
    with pytest.raises(KeyboardInterrupt):
        dispatcher.handle(event("postsuspend"), 3.0)
    parking.look("preresume")
    assert parking.moves.pairs == [{2: 0}]


def test_a_job_that_was_frozen_for_a_moment_only_is_not_parked(
    parking: Set, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The watcher may take a relocation that freezes the job for a suspension."""
    parking.look("suspended", seen_by="watch")
    assert parking.moves.requests == []
    monkeypatch.setattr("schedhook.roles.scheduler._is_stopped", lambda *_: True)
    parking.look("suspended", seen_by="watch")
    assert len(parking.moves.requests) == 2


def test_nothing_is_parked_where_nobody_asked_for_it(one: Set) -> None:
    one.look("postsuspend")
    one.look("preresume")
    assert one.moves.requests == []


# -- repatriation ----------------------------------------------------------------------------------


class Strays:
    """Stands in for the pipeline on a host of four nodes: job 1's memory, in bytes by node."""

    def __init__(self, directory: Path, config: Config, residency: dict[int, int]) -> None:
        write_host(directory, [FakeNode(number=n, cpus=str(n)) for n in range(4)])
        for pid in (ME, PARENT):
            write_process(directory, pid)
        self.moves = Moves()
        self.journal = Journal.in_memory()
        self.residency = residency
        self.dispatcher = Dispatcher(
            config, plugins(directory), self.journal, root=directory, carry_out=self.carry_out
        )
        place(directory, "1", {"0.0": ([ME], "0", "0")})
        for point in ("begin", "look"):
            self.dispatcher.handle(event(point), 1.0)

    def carry_out(self, request: Request) -> Report:
        if not request.dry_run:
            return self.moves(request)
        assert request.sources is not None
        held = {node: size for node, size in self.residency.items() if node in request.sources}
        moves = {(node, 0): size for node, size in held.items()}
        its = ProcessPlan(pid=ME, command="", residency=self.residency, moves=moves)
        node_map = NodeMap(pairs=dict.fromkeys(request.sources, 0))
        plan = Plan(strategy="s", backend="b", node_map=node_map, processes=(its,))
        return Report(
            outcome=Outcome.PLANNED, strategy="s", backend="b", node_map=node_map, plan=plan
        )

    def end_another(self) -> None:
        """Let another job end, and what follows from it happen."""
        self.dispatcher.handle(event("begin", "2"), 4.0)
        for more in self.dispatcher.handle(event("end", "2"), 5.0).more:
            self.dispatcher.handle(more, 6.0)


STRAYS = {0: 8 << 20, 3: 2 << 20, 2: 100}


def test_pages_elsewhere_come_home_when_another_job_ends(tmp_path: Path) -> None:
    config = with_actions(repatriate=Repatriate.ALL, repatriate_least_mb=1)
    one = Strays(tmp_path, config, STRAYS)
    one.end_another()
    (request,) = one.moves.requests
    assert (request.pids, request.mapper) == ((ME,), "nearest")
    assert one.moves.pairs == [{3: 0}]
    assert len(one.journal.history("1")[0]["reports"]) == 1, "what is only planned is not recorded"


@pytest.mark.parametrize("repatriate", [Repatriate.NEVER, Repatriate.GRANTED, Repatriate.REPORT])
def test_pages_elsewhere_stay_unless_configured(tmp_path: Path, repatriate: Repatriate) -> None:
    one = Strays(tmp_path, with_actions(repatriate=repatriate, repatriate_least_mb=1), STRAYS)
    one.end_another()
    one.dispatcher.handle(event("look", repatriate=True), 7.0)
    assert one.moves.requests == []


@pytest.mark.parametrize("repatriate", [Repatriate.GRANTED, Repatriate.REPORT, Repatriate.ALL])
def test_pages_outside_of_granted_nodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repatriate: Repatriate
) -> None:
    one = Strays(tmp_path, with_actions(repatriate=repatriate, repatriate_least_mb=1), STRAYS)
    monkeypatch.setattr(FakeScheduler, "granted", lambda *_: {"0.0": at("0", "0")})
    done = one.dispatcher.handle(event("look", repatriate=True), 7.0)
    assert done.summary.startswith("2.0 MiB of 0.0 outside of nodes 0")
    assert bool(one.moves.requests) == (repatriate is not Repatriate.REPORT)


def test_a_share_that_is_too_small_is_left(tmp_path: Path) -> None:
    config = with_actions(repatriate=Repatriate.ALL, repatriate_least_mb=1)
    one = Strays(tmp_path, config, STRAYS | {0: 1 << 30})
    one.end_another()
    assert one.moves.requests == []


# -- trouble ---------------------------------------------------------------------------------------


class Observer:
    def __init__(self) -> None:
        self.seen: list[str] = []

    @hookimpl
    def schedhook_event(self, event: Event) -> None:
        self.seen.append(f"event {event.point}")

    @hookimpl
    def schedhook_job_started(self, event: Event) -> None:
        self.seen.append(f"started {event.job}")

    @hookimpl
    def schedhook_job_ended(self, event: Event) -> None:
        self.seen.append(f"ended {event.job}")
        raise RuntimeError("a bad observer")


def test_observers_see_events_and_harm_nobody(tmp_path: Path) -> None:
    observer = Observer()
    one = Set(tmp_path, None, observer)
    assert one.look("end") == "ended"
    assert observer.seen == ["event begin", "started 1", "event end", "ended 1"]


def broken(*_: object, **__: object) -> None:
    raise JournalError("the disk is full")


def test_without_a_journal_memory_follows_all_the_same(
    one: Set, monkeypatch: pytest.MonkeyPatch
) -> None:
    for table, name in (
        (one.journal.runs, "record_start"),
        (one.journal.runs, "record_end"),
        (one.journal.placements, "record"),
        (one.journal.reports, "add"),
        (one.journal.notes, "set"),
        (one.journal.notes, "delete"),
        (one.journal.events, "put"),
    ):
        monkeypatch.setattr(table, name, broken)
    one.put("2", "3")
    one.look()
    one.put("4", "5")
    one.look()
    one.look()
    assert one.moves.pairs == [{0: 2}, {1: 3}, {2: 4}, {3: 5}]
    assert one.dispatcher.handle(event("end"), 4.0).ok


def test_with_a_journal_that_cannot_even_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for table, name in (
        (Runs, "record_start"),
        (Runs, "list_open"),
        (Placements, "record"),
        (Placements, "known_tasks"),
        (Overrides, "get"),
        (Notes, "get"),
        (JobLocks, "acquire"),
        (Reports, "add"),
    ):
        monkeypatch.setattr(table, name, broken)
    one = Set(tmp_path)
    one.put("2", "3")
    one.look()
    assert one.moves.pairs == [{0: 2}, {1: 3}]


@pytest.mark.parametrize("error", [SchedhookError("no"), RuntimeError("bug"), OSError(5, "io")])
def test_a_broken_adapter_is_a_result_and_no_exception(
    one: Set, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(_self: object, _job: str) -> tuple[Task, ...]:
        raise error

    monkeypatch.setattr(FakeScheduler, "tasks", fail)
    handled = one.dispatcher.handle(event("look"), 3.0)
    assert not handled.ok
    assert handled.summary.startswith("failed: ")


def test_an_unknown_scheduler_is_a_result(one: Set) -> None:
    handled = one.dispatcher.handle(Event(scheduler="none", point="begin", job="1"), 1.0)
    assert "no scheduler is called 'none'" in handled.summary


def test_a_job_that_the_watcher_lost_is_closed_only_where_no_hook_will_tell(one: Set) -> None:
    one.look("job-ended", seen_by="watch")
    assert [run.job for run in one.journal.runs.list_open()] == ["1"]
    one.dispatcher.handle(event("job-started", "2", seen_by="watch"), 1.0)
    one.dispatcher.handle(event("job-ended", "2", seen_by="watch"), 2.0)
    assert [run.job for run in one.journal.runs.list_open()] == ["1"]
    run = one.journal.runs.latest("fake", "2")
    assert run is not None
    assert run.ended == 2.0
