"""`schedhook history`: the journal."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from schedhook.cli.options import json_option
from schedhook.config import load_config
from schedhook.errors import UsageError
from schedhook.host.processes import printable
from schedhook.journal import Journal, default_path

_MIB = 1 << 20


@click.command("history")
@click.argument("job", required=False)
@click.option("--limit", type=click.IntRange(min=1), default=1000, help="At most so many runs.")
@json_option
@click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Configuration file, /etc/schedhook/config.toml by default.",
)
def command(job: str | None, limit: int, as_json: bool, config_path: Path | None) -> int:
    """What was seen and done on this host: of every job, or of JOB in full.

    A job that was requeued has several runs. Sizes in JSON are bytes, times seconds after the
    epoch.
    """
    config = load_config(config_path)
    path = Path(config.journal.path) if config.journal.path else default_path()
    if not path.exists():
        raise UsageError(f"{path}: there is no journal yet; the agent and the hooks write it")
    with Journal.open(path, create=False) as journal:
        runs = journal.history(job, limit)
    if as_json:
        click.echo(json.dumps(runs, indent=2))
    elif job is not None and not runs:
        raise UsageError(f"{path}: no job {job!r}")
    elif job is None:
        _show_all(runs)
    else:
        for run in runs:
            _show_one(run)
    return 0


def _show_all(runs: list[dict[str, Any]]) -> None:
    rows = [
        (
            run["scheduler"],
            run["job"],
            "" if run["user"] is None else str(run["user"]),
            _when(run["started"]),
            _when(run["ended"]) if run["ended"] else "open",
            str(len(run["reports"])),
            _mib(sum(report["bytes_moved"] for report in run["reports"])),
            run["reports"][-1]["outcome"] if run["reports"] else "",
        )
        for run in runs
    ]
    columns = ("scheduler", "job", "user", "started", "ended", "moves", "moved", "last outcome")
    _print_table("", columns, rows)


def _show_one(run: Mapping[str, Any]) -> None:
    rows = [(event["at"], "event", f"{event['point']}: {_done(event)}") for event in run["events"]]
    rows += [
        (
            seen["at"],
            "placement",
            f"{seen['task']}: processors {seen['cpus']}, nodes {seen['nodes']}"
            + ("" if seen["settled"] else " (memory not there)"),
        )
        for seen in run["placements"]
    ]
    rows += [
        (
            report["at"],
            "moved",
            f"{_mib(report['bytes_moved'])} {_pairs(report['node_map'])}, {report['outcome']}"
            + (f", {_mib(report['bytes_left'])} left" if report["bytes_left"] else ""),
        )
        for report in run["reports"]
    ]
    if run["wish"]:
        wish = run["wish"]
        text = f"processors {wish['cpus']}, nodes {wish['nodes']} until it ends"
        rows.append((wish["at"], "wish", text))
    rows.sort(key=lambda row: float(row[0]))
    ended = _when(run["ended"]) if run["ended"] else "open"
    title = f"{run['scheduler']} job {run['job']}, {_when(run['started'])} to {ended}"
    _print_table(title, ("time", "", "what"), [(_when(row[0]), row[1], row[2]) for row in rows])


def _print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(*columns, title=escape(printable(title)), title_justify="left", box=box.SIMPLE)
    for row in rows:
        table.add_row(*(escape(printable(cell)) for cell in row))
    Console().print(table)


def _done(event: Mapping[str, Any]) -> str:
    return event["summary"] or ("done" if event["done"] else "not handled yet")


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def _mib(size: int) -> str:
    return f"{size / _MIB:.1f} MiB"


def _pairs(node_map: Mapping[str, int]) -> str:
    return ",".join(f"{old}:{new}" for old, new in node_map.items())
