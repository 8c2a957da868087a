"""Events on their way in: what a hook sent, what it means, and who may say it.

Everything that comes from outside is checked here: a message may be anybody's, and a job's number
is a part of path names further on.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from schedhook.hook import delivery
from schedhook.roles.scheduler import Scheduler
from schedhook.values.errors import RefusedError, SchedhookError, UsageError
from schedhook.values.model import Event

_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")
_JOB = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@:+\[\]-]{0,127}")
_OLDEST = 30 * 86400.0
_STALE_SECONDS = 3600.0


class EventKind(StrEnum):
    """What an event means, whatever its scheduler calls it."""

    JOB_STARTED = "job-started"
    JOB_ENDED = "job-ended"
    STEP_STARTED = "step-started"
    RELOCATED = "relocated"
    """The job may have other processors or nodes now."""
    SUSPENDED = "suspended"
    RESUMING = "resuming"
    """It is about to go on, and waits for the answer."""
    RESUMED = "resumed"
    LOOK = "look"
    """Compare with the journal whatever there is; without a job: every job."""
    IGNORE = "ignore"


_KINDS: Mapping[str, EventKind] = {
    **{kind.value: kind for kind in EventKind},
    "prolog": EventKind.JOB_STARTED,
    "epilog": EventKind.JOB_ENDED,
    "task_prolog": EventKind.STEP_STARTED,
    "begin": EventKind.JOB_STARTED,
    "launch": EventKind.JOB_STARTED,
    "attach": EventKind.STEP_STARTED,
    "resize": EventKind.RELOCATED,
    "postsuspend": EventKind.SUSPENDED,
    "preresume": EventKind.RESUMING,
    "end": EventKind.JOB_ENDED,
    "periodic": EventKind.LOOK,
}


def kind_of(event: Event, adapter: Scheduler) -> EventKind:
    """The adapter's word first (its attribute `kinds`: point → kind), else what hooks of that name
    commonly mean."""
    given = getattr(adapter, "kinds", {}).get(event.point)
    if given is not None:
        return EventKind(given)
    return _KINDS.get(event.point.replace("-", "_"), _KINDS.get(event.point, EventKind.IGNORE))


_OF_USERS = frozenset({EventKind.STEP_STARTED})
_SEEN_BY_USER = {"seen_by": "user"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What a hook sent, not yet understood; `schedhook.hook.delivery` tells the format."""

    scheduler: str
    point: str
    environ: Mapping[str, str]
    data: bytes
    at: float
    """When the hook ran, in seconds after the epoch, by its own account."""
    wait: bool


def parse_message(raw: bytes) -> Message:
    """UsageError for anything that `delivery.make_message` would not have made."""
    if len(raw) > delivery.MOST_BYTES:
        raise UsageError(f"the message has more than {delivery.MOST_BYTES} bytes")
    parts = raw.split(b"\0", 6)
    if len(parts) < 7 or parts[0] != delivery.MAGIC or parts[1] not in (b"", b"wait"):
        raise UsageError("this is not a message of a schedhook hook")
    scheduler, point = (part.decode("ascii", "replace") for part in parts[3:5])
    if not (_WORD.fullmatch(scheduler) and _WORD.fullmatch(point)):
        raise UsageError("the message names no scheduler and no point of it")
    try:
        at, count = float(parts[2]), int(parts[5])
    except ValueError:
        raise UsageError("the message's time or its count of variables is no number") from None
    if not 0 <= count <= len(parts[6]):
        raise UsageError(f"the message cannot have {count} variables")
    *variables, data = parts[6].split(b"\0", count) if count else [parts[6]]
    if len(variables) != count:
        raise UsageError("the message ends before its variables do")
    now = time.time()
    return Message(
        scheduler=scheduler,
        point=point,
        environ=dict(_variable(variable) for variable in variables),
        data=data,
        # A clock that is wrong must not put an event before the job's, or after everything.
        at=at if math.isfinite(at) and now - _OLDEST < at <= now else now,
        wait=bool(parts[1]),
    )


def _variable(raw: bytes) -> tuple[str, str]:
    name, _, value = raw.decode("utf-8", "surrogateescape").partition("=")
    return name, value


def read_event(message: Message, adapter: Scheduler) -> Event:
    """What the adapter makes of it, checked. UsageError where it cannot be read or used."""
    event = adapter.read_event(message.point, message.environ, message.data)
    check_job(event.job, may_be_empty=kind_of(event, adapter) in (EventKind.LOOK, EventKind.IGNORE))
    return event


def check_job(job: str, *, may_be_empty: bool = False) -> None:
    """UsageError for what no scheduler calls a job, and what could be taken for a path."""
    if not (_JOB.fullmatch(job) or (may_be_empty and not job)):
        raise UsageError(f"{job[:40]!r} is not a job's id")


def read_users_event(
    message: Message, adapter: Scheduler, uid: int, owner: Callable[[str], int | None]
) -> Event:
    """What a user may say: that a step has started of a job that is theirs by `owner`. Nothing else
    of the message is believed: it makes us look at the job, as the kernel and root's hooks tell it.
    RefusedError, UsageError."""
    told = Event(scheduler=message.scheduler, point=message.point, job="")
    if kind_of(told, adapter) not in _OF_USERS:
        raise RefusedError(f"{message.point!r} is for the scheduler to say, not for user {uid}")
    event = read_event(message, adapter)
    if owner(event.job) != uid:
        raise RefusedError(f"job {event.job} is not known to be of user {uid}")
    return replace(told, point=event.point, job=event.job, data=_SEEN_BY_USER)


# -- the spool -----------------------------------------------------------------------------------


def read_spool(directory: Path) -> Iterator[tuple[Path, bytes]]:
    """The messages that wait, oldest first; whoever has dealt with one unlinks its file.

    SchedhookError where others could have put them there. What hooks left half-written is removed
    after an hour.
    """
    try:
        delivery.check_spool(str(directory))
        names = sorted(entry.name for entry in directory.iterdir())
    except FileNotFoundError:
        return
    except OSError as error:
        raise SchedhookError(f"{directory}: {error.strerror}") from error
    except delivery.NotDelivered as problem:
        raise SchedhookError(f"the spool is not used: {problem}") from None
    for name in names:
        path = directory / name
        with contextlib.suppress(OSError):  # gone meanwhile, or not to be removed
            if name.endswith(".event"):
                raw = _read_message(path)
                if raw is not None:
                    yield path, raw
            elif name.endswith(".tmp") and time.time() - path.lstat().st_mtime > _STALE_SECONDS:
                path.unlink()


def count_spool(directory: Path) -> int:
    """How many messages wait. SchedhookError where this user may not look."""
    try:
        return sum(1 for entry in directory.iterdir() if entry.name.endswith(".event"))
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise SchedhookError(f"{directory}: {error.strerror}") from error


def _read_message(path: Path) -> bytes | None:
    """None for what is no plain file of this user."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError:
        return None
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            return None
        return os.read(handle, delivery.MOST_BYTES + 1)
    finally:
        os.close(handle)
