"""Showing how a relocation goes and what came of it: for people, or as JSON."""

from __future__ import annotations

import json
import os
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import click

from schedhook.cli.main import complain
from schedhook.plugins.manager import Plugins
from schedhook.relocation.pipeline import Progress, relocate
from schedhook.roles.request import Request
from schedhook.values.config import Config
from schedhook.values.model import Outcome, Report

_KEPT = frozenset({Outcome.COMPLETE, Outcome.PARTIAL, Outcome.REFUSED, Outcome.FAILED})


def carry_out(
    request: Request, config: Config, plugins: Plugins, root: Path, as_json: bool
) -> Report:
    """Relocate, with a bar where a person looks on, and keep the report."""
    with progress_bar(as_json) as progress:
        report = relocate(request, config, plugins, root=root, progress=progress)
    keep_report(report, config, root)
    return report


def progress_bar(as_json: bool) -> AbstractContextManager[Progress | None]:
    """A bar where a person looks on."""
    if as_json or not sys.stderr.isatty():
        return nullcontext(None)
    from schedhook.cli.output.report import progress_bar

    return progress_bar()


def keep_report(report: Report, config: Config, root: Path) -> None:
    """Write what root did on this host into its journal, where `history` and `metrics` find it."""
    if root == Path("/") and os.geteuid() == 0 and report.outcome in _KEPT:
        keep(report, config)


def keep(report: Report, config: Config) -> None:
    """Write a report into the journal; where that fails, the log says so."""
    from schedhook.journal.errors import JournalError
    from schedhook.journal.journal import open_journal
    from schedhook.values.log import get_logger

    try:
        with open_journal(config) as journal:
            journal.reports.add(report)
    except JournalError as error:
        get_logger().error("not in the journal", problem=str(error))


def print_report(report: Report, as_json: bool, more: dict[str, Any] | None = None) -> None:
    """The report; `more` is added to its object."""
    if as_json:
        click.echo(json.dumps(report.to_dict() | (more or {}), ensure_ascii=False))
        if report.outcome in (Outcome.REFUSED, Outcome.FAILED):
            complain(f"schedhook: {report.outcome.value}: {report.notes[-1]}")
    else:
        from schedhook.cli.output.report import print_report

        print_report(report)
