"""Read what `schedhook report` shows of a host: jobs and nodes now, and what was done lately."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from schedhook.cli.footprints import Target, read_shown
from schedhook.cli.output.files import host_name
from schedhook.journal.errors import JournalError
from schedhook.journal.file import has_journal, journal_path
from schedhook.journal.gains import KEEP_LOCAL, gain_hours
from schedhook.journal.journal import Journal
from schedhook.plugins.manager import Plugins
from schedhook.values.config import Config

_MOST_RUNS = 10_000
_OF_JOB = ("scheduler", "job", "alias", "name", "user")
_OF_MOVE = (
    "at",
    "outcome",
    "strategy",
    "node_map",
    "bytes_moved",
    "bytes_left",
    "left_by_reason",
    "seconds",
)
_ENDED = "ended"
"""What keep_local writes of a job that has ended, besides its decisions."""

Run = Mapping[str, Any]


def read_host_report(
    config: Config, plugins: Plugins, root: Path, since: float, scheduler: str | None = None
) -> dict[str, Any]:
    """Return the object that `report --json` prints; `since` is in seconds after the epoch.

    If the journal cannot be read, `problems` says so and there are no moves.
    """
    now = time.time()
    shown = read_shown(Target(scheduler=scheduler), plugins, root)
    runs, problems = _read_runs(config, root, since, scheduler)
    gains = [gain_hours(run["events"], since, min(run["ended"] or now, now)) for run in runs]
    found = [gain for gain in gains if gain is not None]
    return {
        "host": host_name(root),
        "at": now,
        "since": since,
        **shown,
        "problems": [*shown["problems"], *problems],
        "moves": _latest_first(_moves(run, since) for run in runs),
        "decisions": _latest_first(_decisions(run, since) for run in runs),
        "off_node_gib_hours_avoided": round(sum(found), 6) if found else None,
    }


def _read_runs(
    config: Config, root: Path, since: float, scheduler: str | None
) -> tuple[list[Run], list[str]]:
    """Return runs from the journal, of a snapshot from the one in it, and what hinders that."""
    path = journal_path(config)
    if root != Path("/"):
        path = root / str(path).lstrip("/")
    try:
        if not has_journal(path):
            return [], [f"{path}: no journal yet, so there are no moves"]
        with Journal.open(path, create=False) as journal:
            runs = journal.history(None, _MOST_RUNS, since)
    except JournalError as error:
        return [], [str(error)]
    said = [f"only the latest {_MOST_RUNS} runs of jobs were read; choose a later --since"]
    problems = said if len(runs) == _MOST_RUNS else []
    return [run for run in runs if scheduler in (None, run["scheduler"])], problems


def _moves(run: Run, since: float) -> Iterator[dict[str, Any]]:
    for report in run["reports"]:
        if report["at"] >= since:
            yield _job_of(run) | {key: report.get(key) for key in _OF_MOVE}


def _decisions(run: Run, since: float) -> Iterator[dict[str, Any]]:
    for event in run["events"]:
        if event["point"] == KEEP_LOCAL and event["at"] >= since:
            verdict = event["figures"].get("verdict")
            if verdict != _ENDED:
                said = {"at": event["at"], "verdict": verdict, "summary": event["summary"]}
                yield _job_of(run) | said


def _job_of(run: Run) -> dict[str, Any]:
    return {key: run[key] for key in _OF_JOB}


def _latest_first(found: Iterator[Iterator[dict[str, Any]]]) -> Sequence[dict[str, Any]]:
    return sorted((each for its in found for each in its), key=lambda each: -each["at"])
