"""`schedhook report`: one page of a host, for a browser."""

from __future__ import annotations

import json
import time
from pathlib import Path

import click

from schedhook.cli.host_report import read_host_report
from schedhook.cli.loading import load
from schedhook.cli.options.common import common_options, json_option
from schedhook.cli.options.processes import scheduler_option
from schedhook.cli.options.times import SINCE
from schedhook.cli.options.types import PathType
from schedhook.cli.output.files import check_file, write_file
from schedhook.values.errors import UsageError

_STDOUT = Path("-")
_DAY = 86_400

_EXAMPLES = """\b
Examples:
  schedhook report --html /var/www/html/memory.html
  schedhook report --since 7d --html - | gzip > report.html.gz
"""


@click.command("report", epilog=_EXAMPLES)
@click.option(
    "--html",
    type=PathType(),
    metavar="FILE",
    help="Write the page to this file, or to standard output if it is `-`.",
)
@click.option(
    "--since",
    type=SINCE,
    metavar="TIME",
    help="The time from which on moves and decisions are shown, such as 12h, 7d (ago) or"
    " 2026-11-23T08:00 (local time); a day ago by default.",
)
@scheduler_option
@json_option
@common_options
def command(
    html: Path | None,
    since: float | None,
    scheduler: str | None,
    as_json: bool,
    config_path: Path | None,
    root: Path,
) -> int:
    """Write one page of this host: where its jobs' memory is, each node, and what was moved.

    The page has the jobs and nodes as `show` has them, and of the last day the relocations and
    keep_local's decisions from the journal. It is a single file that loads nothing and contains no
    script, for wide and narrow screens and for paper.

    An existing file is replaced as a whole; links, devices and directories are refused. With
    --json, prints the figures of the page; sizes are bytes, times seconds since the epoch.
    """
    if html is None and not as_json:
        raise UsageError("name the file to write, --html FILE (- for standard output), or --json")
    if html == _STDOUT and as_json:
        raise UsageError("--html - and --json both print: name a file, or leave out one of them")
    if html not in (None, _STDOUT):
        check_file(html)
    config, plugins = load(config_path)
    since = time.time() - _DAY if since is None else since
    shown = read_host_report(config, plugins, root, since, scheduler)
    if as_json:
        click.echo(json.dumps(shown, ensure_ascii=False))
    if html is not None:
        from schedhook.cli.output.html.host import draw_host

        page = draw_host(shown)
        if html == _STDOUT:
            click.echo(page, nl=False)
        else:
            write_file(html, page)
    return 0
