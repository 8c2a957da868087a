"""What came of an event, and of each step of the work on it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from schedhook.values.model import Event


@dataclass(frozen=True, slots=True, kw_only=True)
class EventResult:
    """What came of an event."""

    summary: str
    """One line for people and the scheduler's log."""
    ok: bool = True
    acted: bool = True
    """Whether anything was done; if not, the event is logged only at level debug."""
    retry_after: float | None = None
    """Seconds after which the same event may have another outcome."""
    more: tuple[Event, ...] = ()
    """Events of other jobs that follow from this one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What came of one step of the work on a job."""

    lines: tuple[str, ...] = ()
    """What was done, each a line for people; none if there was nothing to do."""
    ok: bool = True
    waits: bool = False
    """The rest of the work must wait, for `retry_after` seconds."""
    retry_after: float | None = None


def combine(steps: Iterable[Step], nothing: str) -> EventResult:
    """Return the result of all steps; `nothing` is the summary if none of them did anything."""
    steps = list(steps)
    lines = [line for step in steps for line in step.lines]
    retries = [step.retry_after for step in steps if step.retry_after is not None]
    return EventResult(
        summary="; ".join(lines) or nothing,
        ok=all(step.ok for step in steps),
        acted=bool(lines) and not any(step.waits for step in steps),
        retry_after=min(retries, default=None),
    )
