"""Events on their way in: what a hook sent, what it means, and who may say it.

Everything that comes from outside is checked here: a message may be anybody's, and a job's number
is a part of path names further on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from schedhook.hook.message import Message
from schedhook.roles.scheduler import EventKind, Scheduler, check_job
from schedhook.values.errors import RefusedError
from schedhook.values.model import Event

_OF_USERS = frozenset({EventKind.STEP_STARTED})
_SEEN_BY_USER = {"seen_by": "user"}


def read_event(message: Message, adapter: Scheduler) -> Event:
    """What the adapter makes of it, checked. UsageError where it cannot be read or used."""
    event = adapter.read_event(message.point, message.environ, message.data)
    check_job(event.job, may_be_empty=adapter.kind_of(event) in (EventKind.LOOK, EventKind.IGNORE))
    return event


def read_users_event(
    message: Message, adapter: Scheduler, uid: int, owner: Callable[[str], int | None]
) -> Event:
    """What a user may say: that a step has started of a job that is theirs by `owner`. Nothing else
    of the message is believed: it makes us look at the job, as the kernel and root's hooks tell it.
    RefusedError, UsageError."""
    told = Event(scheduler=message.scheduler, point=message.point, job="")
    if adapter.kind_of(told) not in _OF_USERS:
        raise RefusedError(f"{message.point!r} is for the scheduler to say, not for user {uid}")
    event = read_event(message, adapter)
    if owner(event.job) != uid:
        raise RefusedError(f"job {event.job} is not known to be of user {uid}")
    return replace(told, point=event.point, job=event.job, data=_SEEN_BY_USER)
