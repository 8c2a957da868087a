"""Parking: a suspended job's memory moves to other nodes, and comes back."""

from __future__ import annotations

from pathlib import Path

import pytest

from schedhook.agent import suspensions
from schedhook.agent.dispatcher import Dispatcher
from schedhook.roles.request import Request
from schedhook.testing.hosts import FakeNode, write_host, write_process
from schedhook.values.errors import RefusedError
from schedhook.values.model import (
    Outcome,
    Report,
)
from schedhook.values.sets import NodeSet
from tests.unit.agent.one_job import ME, PARENT, OneJob, at
from tests.unit.agentkit import (
    FakeScheduler,
    event,
    homes,
    with_actions,
)


@pytest.fixture
def parking(tmp_path: Path) -> OneJob:
    return OneJob(tmp_path, with_actions(park=NodeSet.parse("2-3")))


def test_parked_memory_comes_back_to_where_it_was(
    parking: OneJob, monkeypatch: pytest.MonkeyPatch
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


def test_a_resume_that_was_missed_is_made_up_for_by_a_look(parking: OneJob) -> None:
    parking.look("postsuspend")
    parking.moves.requests.clear()
    parking.look()
    assert parking.moves.pairs == [{2: 0}, {2: 1}]


def test_no_two_nodes_are_parked_on_one(tmp_path: Path) -> None:
    one = OneJob(tmp_path, with_actions(park=NodeSet({3})))
    one.put("0,2", "1")
    one.look()
    summary = one.look("postsuspend")
    assert summary.startswith("0.0: not parked: nodes 0,2 need a node each, and there are nodes 3")
    assert one.moves.pairs == [{1: 3}]


def test_a_cpuset_is_widened_for_parked_memory_and_restored(
    parking: OneJob, monkeypatch: pytest.MonkeyPatch
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


def test_what_a_cpuset_must_not_be_widened_for_is_not_parked(
    parking: OneJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    def allow_nodes(_self: object, _job: str, nodes: NodeSet) -> bool:
        raise RefusedError(f"not for {nodes}")

    monkeypatch.setattr(FakeScheduler, "allow_nodes", allow_nodes)
    assert "not parked: not for 2" in parking.look("postsuspend")
    assert parking.moves.requests == []
    assert parking.journal.notes.get("fake", "1", "parked", str) is None


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"job": {}}', '{"job": 5}', '{"job": {"home": "0", "park": "x"}}']
)
def test_a_damaged_note_of_what_is_parked_is_met_once(parking: OneJob, text: str) -> None:
    parking.look("postsuspend")
    parking.journal.notes.set("fake", "1", "parked", text)
    parking.moves.requests.clear()
    for _ in range(2):
        assert parking.look("resumed") == "all in place"
    assert parking.journal.counts().damaged == 1
    assert parking.moves.requests == []


def test_a_job_that_resumes_elsewhere_goes_there(parking: OneJob) -> None:
    parking.look("postsuspend")
    parking.moves.requests.clear()
    parking.put("5", "6")
    parking.look("preresume")
    assert parking.moves.pairs == [{2: 5}, {2: 6}]
    assert homes(parking.journal, "fake", "1")["0.0"] == at("5", "5")
    assert parking.look() == "all in place"


def test_parked_memory_leaves_a_node_before_another_tasks_comes(parking: OneJob) -> None:
    parking.put("0-1", "1")
    parking.look()
    parking.look("postsuspend")
    assert parking.moves.pairs == [{0: 2, 1: 3}, {1: 2}]
    parking.moves.requests.clear()
    parking.put("2", "5")
    parking.look("preresume")
    assert parking.moves.pairs == [{2: 5}, {3: 2}]


def test_what_does_not_fit_on_the_parking_nodes_stays(parking: OneJob) -> None:
    parking.moves.outcome = Outcome.REFUSED
    parking.look("postsuspend")
    parking.moves.requests.clear()
    parking.look("preresume")
    assert parking.moves.requests == []


def test_what_is_refused_on_one_node_is_parked_on_another(parking: OneJob) -> None:
    """Node 2 has filled up since its room was read."""

    def carry_out(request: Request) -> Report:
        full = request.node_map is not None and 2 in request.node_map.pairs.values()
        parking.moves.outcome = Outcome.REFUSED if full else Outcome.COMPLETE
        return parking.moves(request)

    dispatcher = Dispatcher(
        with_actions(park=NodeSet.parse("2-3")),
        parking.dispatcher._plugins,
        parking.journal,
        carry_out=carry_out,
    )
    handled = dispatcher.handle(event("postsuspend"), 3.0)
    assert parking.moves.pairs == [{0: 2}, {0: 3}, {1: 2}, {1: 3}]
    assert handled.summary.count("refused") == 2
    parking.moves.requests.clear()
    parking.moves.outcome = Outcome.COMPLETE
    parking.look("preresume")
    assert parking.moves.pairs == [{3: 0}, {3: 1}]


def test_tasks_are_spread_over_the_parking_nodes_by_their_room(tmp_path: Path) -> None:
    """Each goes where most room is left, not all to the first node."""
    room = {0: 64, 1: 64, 2: 300, 3: 500}

    def write(held: dict[int, int]) -> None:
        free = {node: room[node] - held.get(node, 0) for node in room}
        nodes = [FakeNode(number=n, cpus=str(n), memory=1 << 30, free=free[n] << 20) for n in room]
        write_host(tmp_path / "host", nodes)

    one = OneJob(tmp_path, with_actions(park=NodeSet.parse("2-3")))
    held: dict[int, int] = {}
    write(held)
    for pid in (ME, PARENT):
        write_process(tmp_path / "host", pid)

    def carry_out(request: Request) -> Report:
        report = one.moves(request)
        assert request.node_map is not None
        if not request.dry_run:
            for node in request.node_map.pairs.values():
                held[node] = held.get(node, 0) + 250
            write(held)
        return report

    dispatcher = Dispatcher(
        with_actions(park=NodeSet.parse("2-3")),
        one.dispatcher._plugins,
        one.journal,
        root=tmp_path / "host",
        carry_out=carry_out,
    )
    dispatcher.handle(event("postsuspend"), 3.0)
    assert one.moves.pairs == [{0: 3}, {1: 2}]


def test_a_return_that_is_refused_is_tried_again(parking: OneJob) -> None:
    parking.look("postsuspend")
    parking.moves.outcome = Outcome.REFUSED
    handled = parking.dispatcher.handle(event("preresume"), 4.0)
    assert handled.retry_after is not None
    parking.moves.outcome = Outcome.COMPLETE
    parking.moves.requests.clear()
    parking.look("resumed", again=True)
    assert parking.moves.pairs == [{2: 0}, {2: 1}]


def test_parking_survives_a_crash_in_the_middle(parking: OneJob) -> None:
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
    parking: OneJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The watcher may take a relocation that freezes the job for a suspension."""
    parking.look("suspended", seen_by="watch")
    assert parking.moves.requests == []
    monkeypatch.setattr("schedhook.roles.scheduler._is_stopped", lambda *_: True)
    parking.look("suspended", seen_by="watch")
    assert len(parking.moves.requests) == 2


def test_nothing_is_parked_unless_configured(one: OneJob) -> None:
    one.look("postsuspend")
    one.look("preresume")
    assert one.moves.requests == []


def test_slices_of_gang_scheduling_carry_no_memory_out_and_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A suspension must have lasted; a retry that meets the next one waits anew."""
    one = OneJob(tmp_path, with_actions(park=NodeSet.parse("2-3"), park_after_s=60.0))
    monkeypatch.setattr(FakeScheduler, "suspended", lambda *_: True)
    now = 1000.0
    monkeypatch.setattr(suspensions.time, "monotonic", lambda: now)
    for _ in range(3):
        first = one.dispatcher.handle(event("postsuspend"), 3.0)
        assert (first.retry_after, first.acted) == (60.0, False)
        now += 30
        one.look("resumed")
        now += 30
        one.dispatcher.handle(event("postsuspend"), 3.0)
        again = one.dispatcher.handle(event("postsuspend", seen_by="watch", again=True), 3.0)
        assert again.retry_after == 60.0
    assert one.moves.requests == []
    now += 60
    one.dispatcher.handle(event("postsuspend", seen_by="watch", again=True), 3.0)
    assert one.moves.pairs == [{0: 2}, {1: 2}]
