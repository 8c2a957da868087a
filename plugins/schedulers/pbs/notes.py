"""What the adapter remembers of a job between PBS's events, each a note in the journal.

A hook of PBS is told of one moment: a sister host never hears a job's session, and resize does not
say what the job had before.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from schedhook.roles.notes import JobNotes

TOLD = "pbs-told"
"""The key of what PBS told; every job that PBS told something of has it."""
FENCE = "pbs-fence"
REPLACING = "pbs-replacing"

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What PBS's hooks told of a job."""

    exec_vnode: str | None = None
    host: str = ""
    """This host as PBS calls it."""
    user: int | None = None
    sessions: tuple[int, ...] = ()
    """Sessions of the job's tasks."""
    suspended: bool = False
    queue: str | None = None
    account: str | None = None
    choice: str | None = None
    """The job's resource `schedhook`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fence:
    """The job's cpuset.mems, widened for memory that is parked."""

    before: str
    """What it was."""
    wide: str
    """What it was widened to; if it says something else, PBS has written it since."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replacing:
    """Other CPUs and nodes that a job is being given; written before anything changes."""

    cpus: Mapping[int, int]
    """Old CPU → new one."""
    nodes: Mapping[int, int]
    """Old node → new one."""
    cpus_before: str
    """The job's cpuset.cpus."""
    mems_before: str
    """Its cpuset.mems; empty if it has none of its own."""


class PbsNotes:
    """The adapter's notes as values; one that is damaged counts as missing."""

    def __init__(self, notes: Callable[[], JobNotes]) -> None:
        self._notes = notes

    def jobs(self) -> tuple[str, ...]:
        """Return every job that PBS told something of."""
        return self._notes().jobs(TOLD)

    def told(self, job: str) -> Told:
        """Return what PBS told of the job."""
        return self._read(job, TOLD, _parse_told) or Told()

    def set_told(self, job: str, told: Told) -> None:
        """Record what PBS told of the job."""
        self._write(job, TOLD, asdict(told))

    def fence(self, job: str) -> Fence | None:
        """Return how the job's cpuset.mems was widened; None if it is as it was."""
        return self._read(job, FENCE, _parse_fence)

    def set_fence(self, job: str, fence: Fence | None) -> None:
        """Record how the job's cpuset.mems is widened."""
        if fence is not None or self._notes().get(job, FENCE):
            self._write(job, FENCE, asdict(fence) if fence else {})

    def replacing(self, job: str) -> Replacing | None:
        """Return which CPUs the job is being given; None if none."""
        return self._read(job, REPLACING, _parse_replacing)

    def set_replacing(self, job: str, replacing: Replacing | None) -> None:
        """Record which CPUs the job is being given."""
        self._write(job, REPLACING, asdict(replacing) if replacing else {})

    def _read(self, job: str, key: str, parse: Callable[[dict[str, Any]], _T]) -> _T | None:
        text = self._notes().get(job, key)
        if not text:
            return None
        try:
            values = json.loads(text)
            return parse(values) if values else None
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
            return None

    def _write(self, job: str, key: str, values: Mapping[str, Any]) -> None:
        text = json.dumps(values)
        if self._notes().get(job, key) != text:
            self._notes().set(job, key, text)


def _parse_told(values: dict[str, Any]) -> Told:
    return Told(**values | {"sessions": tuple(map(int, values["sessions"]))})


def _parse_fence(values: dict[str, Any]) -> Fence:
    return Fence(before=str(values["before"]), wide=str(values["wide"]))


def _parse_replacing(values: dict[str, Any]) -> Replacing:
    return Replacing(
        cpus=_pairs(values["cpus"]),
        nodes=_pairs(values["nodes"]),
        cpus_before=str(values["cpus_before"]),
        mems_before=str(values["mems_before"]),
    )


def _pairs(values: Mapping[Any, Any]) -> dict[int, int]:
    return {int(old): int(new) for old, new in values.items()}
