"""Accepting events while another process keeps the journal locked."""

from __future__ import annotations

import socket
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from schedhook.agent.clients import Client
from schedhook.agent.events import SEEN_BY_WATCHER, QueuedEvent
from schedhook.agent.followup import EventResult
from schedhook.agent.inbox import Inbox
from schedhook.hook.message import parse_message
from schedhook.journal.journal import Journal
from schedhook.values.model import Event
from tests.unit.agentkit import Moves, make_dispatcher, message


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal.open(tmp_path / "state" / "journal.db") as journal:
        yield journal


@contextmanager
def locked(tmp_path: Path) -> Iterator[None]:
    """Keep the journal locked for the block."""
    with closing(sqlite3.connect(tmp_path / "state" / "journal.db")) as other:
        other.execute("BEGIN IMMEDIATE")
        yield


def make_inbox(tmp_path: Path, journal: Journal, spool: Path | None) -> Inbox:
    dispatcher = make_dispatcher(tmp_path, Moves(), journal=journal)
    return Inbox(dispatcher, journal.reopen(0.1), spool)


def accept(inbox: Inbox, *, wait: bool) -> QueuedEvent | None:
    """Accept the start of job 7 from a client that is root or this user."""
    raw = message("begin", "7", wait=wait)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        return inbox.accept_message(parse_message(raw), raw, Client(ours))


def test_an_event_is_left_in_the_spool_if_no_client_waits(tmp_path: Path, journal: Journal) -> None:
    inbox = make_inbox(tmp_path, journal, tmp_path / "spool")
    with locked(tmp_path):
        assert accept(inbox, wait=False) is None
        assert inbox.read_spool() == ([], False)
    accepted, _ = inbox.read_spool()
    assert [isinstance(queued.receipt, int) for queued in accepted] == [True]
    assert list((tmp_path / "spool").iterdir()) == []


def test_an_event_with_a_waiting_client_is_handled_at_once(
    tmp_path: Path, journal: Journal
) -> None:
    inbox = make_inbox(tmp_path, journal, tmp_path / "spool")
    with locked(tmp_path):
        queued = accept(inbox, wait=True)
    assert queued is not None
    assert isinstance(queued.receipt, Path)
    assert inbox.read_spool() == ([], False), "its file is claimed"
    inbox.record_result(queued, EventResult(summary="started"))
    assert list((tmp_path / "spool").iterdir()) == []
    assert journal.events.find(queued.event, queued.at) == (1, "started")


def test_an_event_that_can_be_kept_nowhere_is_still_handled(
    tmp_path: Path, journal: Journal
) -> None:
    inbox = make_inbox(tmp_path, journal, None)
    with locked(tmp_path):
        queued = accept(inbox, wait=False)
    assert queued is not None
    assert queued.receipt is None


def test_of_the_watchers_events_only_a_look_that_did_nothing_leaves_no_row(
    tmp_path: Path, journal: Journal
) -> None:
    """That a job went on is worth a row even if a look has brought its memory back before."""
    inbox = make_inbox(tmp_path, journal, None)
    for at, (point, acted) in enumerate([("look", False), ("resumed", False), ("look", True)]):
        event = Event(scheduler="fake", point=point, job="1", data=SEEN_BY_WATCHER)
        inbox.record_result(QueuedEvent(event, 1000.0 + at), EventResult(summary="", acted=acted))
    with closing(sqlite3.connect(tmp_path / "state" / "journal.db")) as read:
        rows = read.execute("SELECT point FROM events ORDER BY at").fetchall()
    assert rows == [("resumed",), ("look",)]
