"""Whose job it is, what people call it, and whether it is suspended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from schedhook.roles.scheduler import JobDescription, Scheduler


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSummary:
    """What `show` says of a job besides its memory; what is None is unknown, or there is no job."""

    alias: str | None = None
    """How people write the job, if not by its id."""
    name: str | None = None
    user: int | None = None
    suspended: bool | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return these entries of `show --json`."""
        return {
            "alias": self.alias,
            "name": self.name,
            "user": self.user,
            "suspended": self.suspended,
        }


def summarise(adapter: Scheduler, job: str) -> JobSummary:
    """Return what the adapter says of the job with this id."""
    about = adapter.describe(job) or JobDescription()
    return JobSummary(
        alias=about.alias or None,
        name=about.name or None,
        user=adapter.owner(job),
        suspended=adapter.suspended(job),
    )
