"""What is to be done for a job, by the configuration and by the job's own choice.

A job says what it wants by one word, `off`, `gentle` or `follow`: in its environment as SCHEDHOOK,
which the job's first process has from its start and a later step may replace, or by the scheduler.
Nothing of a job that is off may be moved unless a command names it: code that is about to move
memory of a job calls `actions_for` first.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

from schedhook.host.environ import read_variable
from schedhook.host.processes import read_start_time
from schedhook.host.users import user_name
from schedhook.roles.scheduler import Scheduler
from schedhook.values.actions import Actions, ActionsSection, Choice, ChoiceFrom, JobFacts
from schedhook.values.errors import NotAnsweringError, SchedhookError
from schedhook.values.log import get_logger

VARIABLE = "SCHEDHOOK"
_KEY = "choice"
"""The key of the note with what the job has chosen."""
_NONE = "none"
"""The note of a job that has chosen nothing that can be understood."""

_SETTLED_SECONDS = 5.0
"""After so long the job's program runs in its first process."""

_log = get_logger()


def actions_for(
    adapter: Scheduler, job: str, section: ActionsSection, *, record: bool = False
) -> Actions:
    """Return what is to be done for the job with this id.

    With `record` the choice in its first process's environment is kept for the time after that
    process. Raise what the adapter raises.
    """
    facts = _facts(adapter, job, section)
    if not section.of(facts).job_choices:
        return section.of(facts)  # nothing is asked of the job
    if section.choice_from is ChoiceFrom.SCHEDULER:
        return section.of(facts, parse_choice(adapter.origin(job).choice))
    return section.of(facts, _own_choice(adapter, job, record))


def configured_actions(adapter: Scheduler, job: str, section: ActionsSection) -> Actions:
    """Return what the configuration says of the job, whatever the job itself has chosen."""
    return section.of(_facts(adapter, job, section))


def note_on_override(adapter: Scheduler, job: str, section: ActionsSection) -> tuple[str, ...]:
    """Return what a command that names the job says if nothing else would move its memory."""
    actions = actions_for(adapter, job, section)
    return (f"job {job} is off, {actions.reason}: this command overrides it",) * actions.is_off


def record_choice(adapter: Scheduler, job: str, word: object) -> None:
    """Keep the word that a step of the job has said, if it is one, in place of an earlier one."""
    if choice := parse_choice(word):
        adapter.notes.set(job, _KEY, choice.value)


def parse_choice(word: object) -> Choice | None:
    """Return the choice that a word of a user's means; None if it means none."""
    with suppress(ValueError):
        return Choice(word.strip().lower()) if isinstance(word, str) else None
    return None


def _facts(adapter: Scheduler, job: str, section: ActionsSection) -> JobFacts:
    """Return what the rules ask for; no more, because a name may come from a slow directory."""
    if not section.rules:
        return JobFacts(scheduler=adapter.name)
    origin = adapter.origin(job)
    uid = adapter.owner(job) if any(rule.users for rule in section.rules) else None
    return JobFacts(
        scheduler=adapter.name,
        queue=origin.queue,
        account=origin.account,
        user=frozenset() if uid is None else frozenset({str(uid), user_name(uid)}),
    )


def _own_choice(adapter: Scheduler, job: str, record: bool) -> Choice | None:
    known = adapter.notes.get(job, _KEY)
    if known is not None:
        return parse_choice(known)
    word = _read_word(adapter, job)
    if word is not None and record:
        adapter.notes.set(job, _KEY, word)
    return parse_choice(word)


def _read_word(adapter: Scheduler, job: str) -> str | None:
    """Return the word in the environment of the job's first process.

    None if it says nothing, and may do so because the scheduler has yet to start the job's program
    in it.
    """
    pid = adapter.first_process(job)
    if pid is None:
        return None
    try:
        said = read_variable(pid, VARIABLE, lambda: adapter.first_process(job) == pid, adapter.root)
    except NotAnsweringError as error:
        _log.warning("environment of a job not readable", job=job, process=pid, problem=str(error))
        return _NONE
    if not said:
        return _NONE if _has_run_for(pid, _SETTLED_SECONDS, adapter.root) else None
    choice = parse_choice(said[:16].decode("ascii", "replace"))
    if choice is None:
        _log.warning("SCHEDHOOK is none of off, gentle, follow, and is ignored", job=job)
    return choice.value if choice else _NONE


def _has_run_for(pid: int, seconds: float, root: Path) -> bool:
    with suppress(SchedhookError):
        started = read_start_time(pid, root) / os.sysconf("SC_CLK_TCK")
        return time.clock_gettime(time.CLOCK_BOOTTIME) - started > seconds
    return False
