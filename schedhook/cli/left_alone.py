"""The jobs whose memory a command about all jobs does not touch, each with the reason."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from schedhook.agent.parking import PARKED
from schedhook.jobs.choice import actions_for
from schedhook.journal.errors import JournalError
from schedhook.journal.file import journal_path
from schedhook.journal.journal import Journal
from schedhook.plugins.manager import Plugins
from schedhook.values.config import Config

JobKey = tuple[str, str]
"""(scheduler, job)."""


def find_left_alone(
    jobs: Iterable[JobKey], config: Config, plugins: Plugins, root: Path
) -> dict[JobKey, str]:
    """Return the jobs that the agent has parked, off-node on purpose, and those that are off."""
    parked = _read_parked(config, root)
    found: dict[JobKey, str] = {}
    for name, job in jobs:
        actions = actions_for(plugins.adapter(name, root), job, config.actions)
        if actions.is_off:
            found[name, job] = f"{actions.reason}; relocate --job {job} --home brings it home"
        elif (name, job) in parked:
            found[name, job] = "its memory is parked until it resumes"
    return found


def _read_parked(config: Config, root: Path) -> set[JobKey]:
    """Return the parked jobs; none for a snapshot, or if no journal can be read."""
    if root != Path("/"):
        return set()
    try:
        with Journal.open(journal_path(config), create=False) as journal:
            return {(run.scheduler, run.job) for run in journal.notes.runs_with(PARKED)}
    except JournalError:
        return set()
