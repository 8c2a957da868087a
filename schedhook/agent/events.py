"""Events: what a message means, who may send it, and what waits to be handled.

Everything that comes from outside is checked here: any user may send a message, and a job's id
becomes a part of path names later.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from schedhook.agent.clients import Client
from schedhook.hook.message import Message
from schedhook.jobs.choice import parse_choice
from schedhook.roles.scheduler import EventKind, Scheduler, check_job
from schedhook.values.errors import RefusedError
from schedhook.values.model import Event

SEEN_BY_WATCHER = {"seen_by": "watch"}
"""In the data of events that the watcher made, not a hook."""
TRIED = "tried"
"""In the data of an event that is handled again: how many times it has been."""
CHOICE = "choice"
"""In the data of the event of a step's start: SCHEDHOOK in the step's environment."""
_SEEN_BY_USER = {"seen_by": "user"}
_ALLOWED_FOR_USERS = frozenset({EventKind.STEP_STARTED})

Receipt = int | Path | None
"""Where an event is kept until it is handled: its number in the journal, or its file in the spool;
None if it is only in memory."""


@dataclass(frozen=True, slots=True)
class QueuedEvent:
    """An event that waits to be handled."""

    event: Event
    at: float
    """When it happened, in seconds after the epoch."""
    receipt: Receipt = None
    client: Client | None = None
    """The client that waits for the result, if one does."""

    @property
    def job_key(self) -> tuple[str, str]:
        """(scheduler, job)."""
        return self.event.scheduler, self.event.job


def read_event(message: Message, adapter: Scheduler) -> Event:
    """Return the event that the adapter reads from the message.

    Raise UsageError if the adapter cannot read it, or if the job's id is not valid.
    """
    event = adapter.read_event(message.point, message.environ, message.data)
    check_job(event.job, may_be_empty=adapter.kind_of(event) in (EventKind.LOOK, EventKind.IGNORE))
    return event


def read_users_event(
    message: Message, adapter: Scheduler, uid: int, owner: Callable[[str], int | None]
) -> Event:
    """Return the event that user `uid` reports: a step of one of their own jobs has started.

    `owner` returns the user id of a job's owner. Only the point and the job's id are taken from the
    message, and one word, the user's choice for the job: the event makes the agent look at the job,
    as the kernel and root's hooks describe it.
    Raise RefusedError if the user may not report it, UsageError if it cannot be read.
    """
    reported = Event(scheduler=message.scheduler, point=message.point, job="")
    if adapter.kind_of(reported) not in _ALLOWED_FOR_USERS:
        raise RefusedError(f"user {uid} may not send {message.point!r}; only the scheduler may")
    event = read_event(message, adapter)
    if owner(event.job) != uid:
        raise RefusedError(f"job {event.job} is not known to belong to user {uid}")
    choice = parse_choice(event.data.get(CHOICE))
    data = _SEEN_BY_USER | ({CHOICE: choice.value} if choice else {})
    return replace(reported, point=event.point, job=event.job, data=data)


def make_retry(event: Event) -> Event:
    """Return the event to handle again later."""
    tried = event.data.get(TRIED, 0)
    count = tried + 1 if isinstance(tried, int) else 1
    return replace(event, data={**event.data, **SEEN_BY_WATCHER, "again": True, TRIED: count})
