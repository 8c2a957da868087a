"""Runs of jobs from the journal, on a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from schedhook.cli.output.tables import WIDE, Column, cell, make_table
from schedhook.cli.output.text import size, when, written
from schedhook.host.users import user_name
from schedhook.values.text import printable

_COLOURS = {"complete": "green", "partial": "yellow", "refused": "red", "failed": "red"}

Run = Mapping[str, Any]
_Entry = tuple[float, str, str]
"""(seconds since the epoch, kind, detail)."""

_ENTRY_COLUMNS: tuple[Column[_Entry], ...] = (
    Column("time", lambda entry: when(entry[0])),
    Column("kind", lambda entry: entry[1]),
    # Long lines are wrapped, not cut.
    Column("detail", lambda entry: Text(printable(entry[2]), overflow="fold"), shrinks=True),
)


def print_runs(runs: Sequence[Run], *, in_full: bool) -> None:
    """Print a line for each run, or with `in_full` a table for each."""
    console = Console(highlight=False)
    if not in_full:
        form = "%Y-%m-%d %H:%M:%S" if console.width >= WIDE else "%m-%d %H:%M"
        columns = _run_columns(form)
        if any(run["off_node_gib_hours_avoided"] is not None for run in runs):
            columns = (*columns, _AVOIDED)
        console.print(make_table(columns, runs, console))
        return
    for run in runs:
        _print_run(run, console)


def _run_columns(form: str) -> tuple[Column[Run], ...]:
    """Return the columns of a list of runs; `form` is how times are written, see strftime(3)."""
    return (
        Column("job", lambda run: f"{run['scheduler']} {run['alias'] or run['job']}", shrinks=True),
        Column("name", lambda run: run["name"] or "", shrinks=True, only_wide=True),
        Column("user", lambda run: user_name(run["user"]), shrinks=True, only_wide=True),
        Column("started", lambda run: when(run["started"], form)),
        Column("ended", lambda run: when(run["ended"], form) if run["ended"] else _state(run)),
        Column("moves", lambda run: str(len(run["reports"]) or "-"), is_number=True),
        Column("moved", _moved, is_number=True),
        Column("left", _left, is_number=True),
        Column("outcome", _outcome),
    )


def _state(run: Run) -> str:
    """Return the state of a run that has not ended."""
    return "suspended" if run["suspended"] else "open"


def _moved(run: Run) -> str:
    reports = run["reports"]
    return size(sum(report["bytes_moved"] for report in reports)) if reports else "-"


def _left(run: Run) -> str:
    """Return what the latest relocation left."""
    left = run["reports"][-1]["bytes_left"] if run["reports"] else 0
    return size(left) if left else "-"


def _avoided(run: Run) -> str:
    """Return the GiB-hours that memory was at home instead of off-node thanks to keep_local."""
    avoided = run["off_node_gib_hours_avoided"]
    return "-" if avoided is None else f"{avoided:.3g}"


_AVOIDED: Column[Run] = Column("GiBh avoided", _avoided, is_number=True, only_wide=True)
"""Only if keep_local has brought something home."""


def _outcome(run: Run) -> Text:
    """Return the latest relocation's outcome."""
    outcome = run["reports"][-1]["outcome"] if run["reports"] else ""
    return cell(outcome, _COLOURS.get(outcome, ""))


def _print_run(run: Run, console: Console) -> None:
    ended = f"to {when(run['ended'])}" if run["ended"] else _state(run)
    whose = f" of {user}" if (user := user_name(run["user"])) else ""
    title = f"{run['scheduler']} job {written(run)}{whose}, {when(run['started'])} {ended}"
    if avoided := run["off_node_gib_hours_avoided"]:
        title += f", {avoided:.3g} GiB-hours off-node avoided"
    console.print(Text(printable(title), style="bold"))
    entries = sorted(_entries(run), key=lambda entry: entry[0])
    if entries:
        console.print(make_table(_ENTRY_COLUMNS, entries, console))


def _entries(run: Run) -> Iterator[_Entry]:
    for event in run["events"]:
        summary = event["summary"] or ("done" if event["done"] else "not handled yet")
        yield float(event["at"]), "event", f"{event['point']}: {summary}"
    for seen in run["placements"]:
        where = f"{seen['task']}: processors {seen['cpus']}, nodes {seen['nodes']}"
        unsettled = "" if seen["settled"] else " (its memory is not there)"
        yield float(seen["at"]), "placement", where + unsettled
    for report in run["reports"]:
        yield float(report["at"]), "moved", _relocation(report)
    if override := run["override"]:
        where = f"processors {override['cpus']}, nodes {override['nodes']} until the job ends"
        yield float(override["at"]), "override", where


def _relocation(report: Run) -> str:
    """Return a relocation in a few words, such as `1.0 GiB 0:3, partial, 4.0 KiB left (EBUSY)`."""
    node_map = ", ".join(f"{old}:{new}" for old, new in report["node_map"].items())
    left = f", {size(report['bytes_left'])} left" if report["bytes_left"] else ""
    if reasons := report.get("left_by_reason"):
        left += f" ({', '.join(reasons)})"
    return f"{size(report['bytes_moved'])} {node_map}, {report['outcome']}{left}"
