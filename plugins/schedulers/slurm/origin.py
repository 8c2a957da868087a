"""Where a job comes from, as Prolog told: partition, account, and what its comment asks for.

Prolog has these from slurmctld; only the choice in the comment, and the step's own environment in
TaskProlog, are words of the job's user.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict

from schedhook.roles.notes import JobNotes
from schedhook.roles.scheduler import JobOrigin
from schedhook.values.model import Event

_KEY = "slurm-origin"
_LONGEST = 4096
_ASKED = re.compile(r"(?:^|[\s,;])schedhook=([a-z]{1,16})(?![^\s,;])")


def asked_in(environ: Mapping[str, str]) -> str | None:
    """Return the word after `schedhook=` in the job's comment or extra field."""
    for variable in ("SLURM_JOB_COMMENT", "SLURM_JOB_EXTRA"):
        if found := _ASKED.search(environ.get(variable, "")[:_LONGEST]):
            return found[1]
    return None


def record_origin(event: Event, notes: JobNotes) -> None:
    """Record what Prolog's event tells of its job."""
    origin = JobOrigin(
        queue=_text(event.data.get("partition")),
        account=_text(event.data.get("account")),
        choice=_text(event.data.get("asked")),
    )
    if origin != JobOrigin():
        notes.set(event.job, _KEY, json.dumps(asdict(origin)))


def read_origin(job: str, notes: JobNotes) -> JobOrigin:
    """Return what was recorded of the job; nothing is known if it was not, or is damaged."""
    with suppress(ValueError, TypeError):
        return JobOrigin(**json.loads(notes.get(job, _KEY) or "{}"))
    return JobOrigin()


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
