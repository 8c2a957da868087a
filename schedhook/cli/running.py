"""Run a relocation for a command: a progress bar for people, the journal, and the report."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from schedhook.cli.errors import complain
from schedhook.jobs.choice import note_on_override
from schedhook.plugins.manager import Plugins
from schedhook.relocation.pipeline import relocate
from schedhook.roles.request import Progress, Request
from schedhook.values.config import Config
from schedhook.values.model import WORST_FIRST, Outcome, Report
from schedhook.values.report_json import report_to_dict

_KEPT = frozenset({Outcome.COMPLETE, Outcome.PARTIAL, Outcome.REFUSED, Outcome.FAILED})


def carry_out(
    request: Request, config: Config, plugins: Plugins, root: Path, as_json: bool
) -> Report:
    """Relocate, show progress if standard error is a terminal, and record the report.

    If the job is off, nothing but a command moves its memory, and a note says so.
    """
    notes: tuple[str, ...] = ()
    if request.job is not None and request.scheduler is not None:
        adapter = plugins.adapter(request.scheduler, root)
        notes = note_on_override(adapter, request.job, config.actions)
    with progress_shown(as_json) as progress:
        report = relocate(request, config, plugins, root=root, progress=progress)
    report = replace(report, notes=(*notes, *report.notes))  # the last one tells of a refusal
    record_real(report, request, config, root)
    return report


def record_real(report: Report, request: Request, config: Config, root: Path) -> None:
    """Record the report if root has relocated on this host, or was refused."""
    is_real = root == Path("/") and os.geteuid() == 0 and not request.dry_run
    if is_real and report.outcome in _KEPT:
        record(report, config)


def record(report: Report, config: Config) -> None:
    """Write a report into the journal, for `history` and `metrics`; if that fails, log it."""
    from schedhook.journal.errors import JournalError
    from schedhook.journal.journal import open_journal
    from schedhook.values.log import get_logger

    try:
        with open_journal(config) as journal:
            journal.reports.add(report)
    except JournalError as error:
        get_logger().error("relocation not recorded in the journal", problem=str(error))


def print_report(report: Report, as_json: bool, more: Mapping[str, Any] | None = None) -> None:
    """Print the report for people, or as one JSON object with the keys of `more` added."""
    if as_json:
        click.echo(json.dumps({**report_to_dict(report), **(more or {})}, ensure_ascii=False))
        if report.outcome in (Outcome.REFUSED, Outcome.FAILED):
            complain(f"schedhook: {report.outcome.value}: {report.notes[-1]}")
    else:
        from schedhook.cli.output import report as output

        output.print_report(report)


def worst_status(reports: Iterable[Report], problems: Sequence[str]) -> int:
    """Return the exit status for several jobs: that of the worst outcome, 1 with a problem."""
    found = {report.outcome for report in reports}
    if problems:
        found.add(Outcome.FAILED)
    return next((each.exit_status for each in WORST_FIRST if each in found), 0)


def progress_shown(as_json: bool) -> AbstractContextManager[Progress | None]:
    """Show a progress bar during the block if standard error is a terminal."""
    if as_json or not sys.stderr.isatty():
        return nullcontext(None)
    from schedhook.cli.output.progress import progress_bar

    return progress_bar()
