"""What an adapter for a batch scheduler offers: its events, and a job's processes on this host."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from schedhook.values.errors import UsageError
from schedhook.values.model import Event, Placement

_JOB = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@:+\[\]-]{0,127}")


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A part of a job that has a placement of its own: an MPI rank with its threads, say."""

    name: str
    """As the scheduler calls it: `0.1` for step 0, task 1, or `job` where it tells no tasks."""
    pids: tuple[int, ...]
    placement: Placement


class Scheduler(Protocol):
    """One scheduler on this host. Every method may be called while jobs come and go."""

    name: str

    def read_event(self, point: str, environ: Mapping[str, str], data: bytes) -> Event:
        """What a hook of the scheduler said: `point` is the hook's name (`prolog`, `resize`, …),
        `environ` its environment, `data` its standard input. UsageError where it cannot be read.
        """
        ...

    def tasks(self, job: str) -> tuple[Task, ...]:
        """The job's tasks on this host, empty where it has none here; each process once."""
        ...

    def cgroups(self, job: str) -> tuple[Path, ...]:
        """The job's cgroups on this host, topmost only, one for each hierarchy."""
        ...


def kind_of(event: Event, adapter: Scheduler) -> EventKind:
    """The adapter's word first (its attribute `kinds`: point → kind), else what hooks of that name
    commonly mean."""
    given = getattr(adapter, "kinds", {}).get(event.point)
    if given is not None:
        return EventKind(given)
    return _KINDS.get(event.point.replace("-", "_"), _KINDS.get(event.point, EventKind.IGNORE))


def check_job(job: str, *, may_be_empty: bool = False) -> None:
    """UsageError for what no scheduler calls a job, and what could be taken for a path."""
    if not (_JOB.fullmatch(job) or (may_be_empty and not job)):
        raise UsageError(f"{job[:40]!r} is not a job's id")
