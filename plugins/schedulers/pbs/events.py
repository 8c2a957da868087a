"""Events of OpenPBS: what its hook hands over, and what is worth remembering of it."""

from __future__ import annotations

import json
import pwd
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from schedhook.values.errors import UsageError
from schedhook.values.model import Event
from schedhook_plugins.schedulers.pbs.jobs import session_of
from schedhook_plugins.schedulers.pbs.notes import PbsNotes, Told

NAME = "pbs"


def read_event(point: str, data: bytes) -> Event:
    """Return what contrib/pbs/schedhook.PY wrote: a JSON object with `job` (or null) and `jobs`.

    Raise UsageError if it is something else.
    """
    try:
        told = json.loads(data)
    except ValueError as error:
        raise UsageError(f"PBS event {point}: standard input is not JSON: {error}") from None
    except RecursionError:
        raise UsageError(f"PBS event {point}: standard input is nested too deeply") from None
    if not isinstance(told, dict):
        raise UsageError(f"PBS event {point}: standard input is not a JSON object")
    job = told.get("job") or {}
    jobs = told.get("jobs") or []
    if not isinstance(job, dict) or not isinstance(jobs, list):
        raise UsageError(f"PBS event {point}: 'job' is not an object or 'jobs' not a list")
    return Event(
        scheduler=NAME,
        point=point,
        job=_text(job.get("id")) or "",
        user=_user(job.get("euser")),
        host=_host(told.get("host")),
        data=told,
    )


def record_event(event: Event, notes: PbsNotes, root: Path) -> None:
    """Record what an event tells of its job, or of all jobs.

    `begin` starts a run: what was told about an earlier run of the job is void.
    """
    if event.job:
        before = Told() if event.point == "begin" else notes.told(event.job)
        about = event.data.get("job") or {}
        now = _update(before, event, about, root)
        suspended = {"postsuspend": True, "preresume": False}.get(event.point, now.suspended)
        user = now.user if event.user is None else event.user
        notes.set_told(event.job, replace(now, suspended=suspended, user=user))
        return
    for job, about in _listed(event):
        notes.set_told(job, _update(notes.told(job), event, about, root))


def jobs_told(event: Event) -> frozenset[str] | None:
    """Return the jobs of an event that lists all of them; of `startup`: none, mom has just come."""
    if event.point == "startup":
        return frozenset()
    return frozenset(job for job, _ in _listed(event)) if event.point == "periodic" else None


def _listed(event: Event) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for about in event.data.get("jobs") or ():
        if isinstance(about, dict) and isinstance(about.get("id"), str) and about["id"]:
            yield about["id"], about


def _update(told: Told, event: Event, about: Mapping[str, Any], root: Path) -> Told:
    text = about.get("exec_vnode")
    sessions = {*told.sessions, *_sessions(event, about, root)}
    return replace(
        told,
        exec_vnode=text if isinstance(text, str) else told.exec_vnode,
        host=event.host or told.host,
        sessions=tuple(sorted(sessions)),
        queue=_text(about.get("queue")) or told.queue,
        account=_text(about.get("Account_Name")) or told.account,
        choice=_text(about.get("schedhook")) or told.choice,
    )


def _sessions(event: Event, about: Mapping[str, Any], root: Path) -> list[int]:
    """Return the sessions that the event names; 1 and less are no job's."""
    pid = event.data.get("pid")
    found = [about.get("session_id")]
    if event.point == "attach" and type(pid) is int:
        found.append(session_of(pid, root))
    return [each for each in found if type(each) is int and each > 1]


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _host(name: Any) -> str:
    """Return the host's name; empty for what no host is called, and no journal could take."""
    return name if isinstance(name, str) and name.isprintable() else ""


def _user(name: Any) -> int | None:
    """Return the number of the user that PBS names."""
    try:
        return pwd.getpwnam(name).pw_uid if isinstance(name, str) else None
    except (KeyError, ValueError):  # ValueError: what cannot be a name, as with a zero byte
        return None
