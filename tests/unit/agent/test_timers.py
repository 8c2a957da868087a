"""Events that are handled later."""

from __future__ import annotations

from schedhook.agent.timers import DelayedEvents
from schedhook.roles.scheduler import EventKind
from tests.unit.agentkit import event


def test_the_ends_of_many_jobs_cause_one_look() -> None:
    delayed = DelayedEvents()
    for number in range(100):
        look = event(EventKind.LOOK.value, "7", because=f"job {number} ended", repatriate=True)
        delayed.add(look, 1.0)
    delayed.add(event(EventKind.LOOK.value, "7"), 0.0)
    assert len(delayed) == 2
    assert delayed.next_due() == 0.0
    assert len(delayed.pop_due(1.0)) == 2
    delayed.add(event(EventKind.LOOK.value, "7"), 60.0)
    assert len(delayed) == 1, "an event that was handled may be added again"


def test_events_are_returned_in_the_order_of_their_times() -> None:
    delayed = DelayedEvents()
    assert delayed.next_due() is None
    for job, due in (("1", 30.0), ("2", 10.0), ("3", 20.0)):
        delayed.add(event(EventKind.LOOK.value, job), due)
    assert delayed.next_due() == 10.0
    assert [each.job for each in delayed.pop_due(20.0)] == ["2", "3"]
    assert delayed.next_due() == 30.0
