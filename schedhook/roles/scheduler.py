"""What an adapter for a batch scheduler offers: its events, and a job's processes on this host."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from schedhook.values.model import Event, Placement


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
