"""Store events until they have been handled."""

from __future__ import annotations

from schedhook.journal.journal import Journal
from tests.unit.journal.kit import event


def test_an_event_is_unfinished_until_it_is_finished(journal: Journal) -> None:
    number = journal.events.put(event(), 5.0)
    assert number is not None
    assert journal.events.list_unfinished() == [(number, 5.0, event())]
    journal.events.finish(number, "started")
    assert journal.events.list_unfinished() == []


def test_the_same_event_is_stored_once(journal: Journal) -> None:
    assert journal.events.put(event(), 5.0) is not None
    assert journal.events.put(event(), 5.0) is None
    assert journal.events.put(event(), 6.0) is not None
