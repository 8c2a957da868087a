"""Footprints that are read again and again, without slowing the jobs down."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from schedhook.jobs.footprint import Footprint, read_job
from schedhook.jobs.summary import JobSummary
from schedhook.roles.scheduler import Scheduler
from schedhook.values.errors import SchedhookError
from schedhook.values.log import get_logger

_log = get_logger()

_CACHE_SECONDS = 60.0
_PAUSE_FACTOR = 20.0
"""A reading is kept for at least this many times as long as it took."""


class FootprintCache:
    """Jobs' footprints, as `schedhook show` reads them, kept for a while.

    Reading walks page tables, during which a process that maps memory has to wait. So each
    scheduler's jobs are read once a minute at most, and for no more than a twentieth of the time.
    """

    def __init__(self) -> None:
        self._cached: dict[str, tuple[float, dict[str, Footprint]]] = {}
        """Scheduler → (when to read again, footprints by job)."""

    def read(self, adapter: Scheduler, jobs: Iterable[str], root: Path) -> Iterator[Footprint]:
        """Yield the footprints of those jobs that have processes here and can be read."""
        due, found = self._cached.get(adapter.name, (float("-inf"), {}))
        began = time.monotonic()
        if began >= due:
            found = {job: each for job in jobs if (each := _read_footprint(adapter, job, root))}
            ended = time.monotonic()
            due = max(began + _CACHE_SECONDS, ended + _PAUSE_FACTOR * (ended - began))
            self._cached[adapter.name] = (due, found)
        return (found[job] for job in jobs if job in found)


def _read_footprint(adapter: Scheduler, job: str, root: Path) -> Footprint | None:
    try:
        found = read_job(adapter, job, root)
        about = adapter.describe(job) if found else None
        user = adapter.owner(job) if found else None
    except (SchedhookError, OSError, ValueError) as error:
        _log.debug("cannot read job's memory", job=job, problem=str(error))
        return None
    if found is None or not found.processes:
        return None
    alias = about.alias if about else None
    return replace(found, summary=JobSummary(alias=alias, user=user))
