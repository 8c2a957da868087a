"""What keep_local has gained for a job, as the journal has it: memory that would be off-node."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from schedhook.values.sizes import GIB

KEEP_LOCAL = "keep-local"
"""The point of the events that say what keep_local has decided."""
_GIB_HOUR = float(GIB) * 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class Gain:
    """A job's gain at one time."""

    at: float = 0.0
    """Seconds after the epoch."""
    kept: int = 0
    """Bytes that were brought home and are there since."""
    avoided: float = 0.0
    """Byte-seconds up to then."""

    @classmethod
    def parse(cls, at: float, data: Mapping[str, Any]) -> Self:
        """Return what an event's data say; what is missing or damaged counts as nothing."""
        kept, avoided = data.get("kept"), data.get("avoided_byte_s")
        return cls(
            at=at,
            kept=kept if isinstance(kept, int) else 0,
            avoided=float(avoided) if isinstance(avoided, int | float) else 0.0,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the keys of an event's data."""
        return {"kept": self.kept, "avoided_byte_s": round(self.avoided)}

    def gib_hours(self, until: float) -> float:
        """Return the gain up to a time, if what was kept stayed until then."""
        return (self.avoided + self.kept * max(0.0, until - self.at)) / _GIB_HOUR


def gain_hours(events: Sequence[Mapping[str, Any]], since: float, until: float) -> float | None:
    """Return the GiB-hours that a run gained between two times; None if it gained nothing by then.

    `events` are the run's, as `history` has them.
    """
    before, after = (
        latest_gain(each for each in events if each["at"] <= at) for at in (since, until)
    )
    if after is None:
        return None
    return after.gib_hours(until) - (before.gib_hours(since) if before else 0.0)


def latest_gain(events: Iterable[Mapping[str, Any]]) -> Gain | None:
    """Return the latest gain in a run's events, as `history` has them; None if there is none."""
    found = [each for each in events if each["point"] == KEEP_LOCAL]
    return Gain.parse(found[-1]["at"], found[-1]["figures"]) if found else None
