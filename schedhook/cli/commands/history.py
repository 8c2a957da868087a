"""`schedhook history`: what the journal has recorded."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from schedhook.cli.options.common import config_option
from schedhook.cli.options.pictures import picture_options
from schedhook.cli.options.times import SINCE
from schedhook.cli.options.types import WholeType
from schedhook.cli.output.files import Pictures
from schedhook.journal.file import has_journal, journal_path
from schedhook.journal.journal import Journal
from schedhook.values.config import load_config
from schedhook.values.errors import UsageError
from schedhook.values.text import join_some

Run = Mapping[str, Any]


@click.command("history")
@click.argument("job", required=False)
@click.option(
    "--since",
    type=SINCE,
    metavar="TIME",
    help="Only runs that had not ended by then, such as 90m, 2h, 3d (ago), 2026-11-23 or"
    " 2026-11-23T08:00 (local time).",
)
@click.option(
    "--limit",
    type=WholeType(1, 1 << 31),
    metavar="N",
    default=1000,
    show_default=True,
    help="At most so many runs, the latest.",
)
@picture_options
@click.option(
    "--json", "as_json", is_flag=True, help="Print a JSON list instead of text for people."
)
@config_option
def command(
    job: str | None,
    since: float | None,
    limit: int,
    svg: Path | None,
    html: Path | None,
    as_json: bool,
    config_path: Path | None,
) -> int:
    """Show what was seen and done on this host: one line per run of each job, or all about JOB.

    A job that was requeued has several runs. With --json, prints one list, an object per run; sizes
    are bytes, times seconds since the epoch. A picture shows JOB's latest relocation.
    """
    pictures = Pictures(svg=svg, html=html)
    if pictures and job is None:
        raise UsageError("--svg and --html show one relocation: name the job, `history JOB`")
    path, runs = _read_runs(job, since, limit, config_path)
    if as_json:
        click.echo(json.dumps(runs, indent=2))
    elif job is not None and not runs:
        when = " since then" if since is not None else ""
        raise UsageError(f"{path}: no job {job!r}{when}; `schedhook history` lists all jobs")
    else:
        from schedhook.cli.output.history import print_runs

        print_runs(runs, in_full=job is not None)
    if pictures:
        from schedhook.cli.output.report_chart import chart_report

        pictures.write(chart_report(_latest_report(runs, job)))
    return 0


def _read_runs(
    job: str | None, since: float | None, limit: int, config_path: Path | None
) -> tuple[Path, Sequence[Run]]:
    """Return the journal's path and the runs in it: none if there is no journal yet.

    Raise UsageError if `job` is the number of an array.
    """
    config = load_config(config_path)
    path = journal_path(config)
    if not has_journal(path):
        return path, []
    with Journal.open(path, create=False) as journal:
        if job is not None and (members := journal.runs.members_of(job)):
            raise UsageError(f"{job} names several jobs; name one: {join_some(members)}")
        return path, journal.history(job, limit, since)


def _latest_report(runs: Iterable[Run], job: str | None) -> Mapping[str, Any]:
    """Return the latest report that has processes. Raise UsageError if there is none."""
    reports = [report for run in runs for report in run["reports"] if report["processes"]]
    if not reports:
        raise UsageError(f"job {job!r} has no relocation to draw; leave out --svg and --html")
    latest: Mapping[str, Any] = reports[-1]
    return latest
