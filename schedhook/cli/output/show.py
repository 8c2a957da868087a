"""The screens of `schedhook show`: one target, or all jobs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from schedhook.cli.output.bars import draw, draw_bar, draw_legend
from schedhook.cli.output.footprint_chart import chart_footprint, chart_jobs, parts_of_job
from schedhook.cli.output.pager import Page, run_pager
from schedhook.cli.output.remarks import (
    notes_of_jobs,
    reading_notes,
    remedy,
    remedy_of_jobs,
)
from schedhook.cli.output.tables import WIDE, Column, make_table
from schedhook.cli.output.text import BAD_SHARE, by_number, percent, size, when
from schedhook.host.users import user_name
from schedhook.values.policy import PolicyCount

Json = Mapping[str, Any]

_POLICIES_SHOWN = 5


def print_shown(shown: Json) -> None:
    """Print what `show --json` has, for people."""
    console = Console(highlight=False)
    console.print(_screen(shown, console))


def watch(read: Callable[[], Json], seconds: float) -> None:
    """Show what `read` returns every `seconds` seconds, until an exception or the key q ends it.

    Each screen replaces the one before if the terminal can do that, and follows it otherwise. What
    does not fit the terminal is reached by keys.
    """
    console = Console(highlight=False)

    def draw(shown: Json) -> Page:
        head = Text(f"{when(time.time())}, every {seconds:g} s", style="bright_black")
        chart = chart_jobs(shown) if "jobs" in shown else chart_footprint(shown)
        legend = draw_legend(chart.groups[0], console) if chart.groups[0].bars else None
        return Page(head=head, body=_screen(shown, console), legend=legend)

    if console.is_terminal and not console.is_dumb_terminal:
        run_pager(console, read, draw, seconds)
        return
    while True:
        page = draw(read())
        console.print(page.head, page.body, sep="\n")
        time.sleep(seconds)


def _screen(shown: Json, console: Console) -> RenderableType:
    return _jobs(shown, console) if "jobs" in shown else _target(shown, console)


def _target(shown: Json, console: Console) -> RenderableType:
    """Return the screen of one job, or of some processes."""
    chart = chart_footprint(shown)
    parts: list[RenderableType] = [
        Text(chart.title, style="bold"),
        Text(chart.facts[0]),
        Text(chart.facts[1], style=colour_of(shown["bytes_off_node"], shown["bytes"])),
    ]
    whole = chart.groups[0]
    if whole.bars:
        parts += ["", draw(whole, console), draw_legend(whole, console)]
    if len(shown["processes"]) > 1:
        parts.append(_process_table(shown, console))
    policies = _policies(shown["processes"])
    said = [*reading_notes([shown]), *remedy(shown)]
    return Group(*parts, *policies, *map(Text, said))


def _jobs(shown: Json, console: Console) -> RenderableType:
    """Return the screen of every job on the host."""
    chart = chart_jobs(shown)
    whole = sum(job["bytes"] for job in shown["jobs"])
    off = sum(job["bytes_off_node"] for job in shown["jobs"])
    parts: list[RenderableType] = [
        Text(chart.title, style="bold"),
        Text(chart.facts[0], style=colour_of(off, whole)),
    ]
    parts.append(job_table(shown, console) if shown["jobs"] else "")
    parts += [draw(chart.groups[0], console), draw_legend(chart.groups[0], console)]
    return Group(*parts, *map(Text, [*notes_of_jobs(shown), *remedy_of_jobs(shown)]))


def job_table(shown: Json, console: Console) -> Table:
    """Return the table of jobs, in the order of `show`; if there are several hosts, with theirs."""
    scale = max(1, *(job["bytes"] for job in shown["jobs"]))
    width = 16 if console.width >= WIDE else 10

    def bar(job: Json) -> Text:
        return draw_bar(parts_of_job(job), scale, width, console)

    columns: tuple[Column[Json], ...] = (
        *_host_column(shown),
        Column("job", lambda job: f"{job['scheduler']} {job['alias'] or job['job']}", shrinks=True),
        Column("name", lambda job: job["name"] or "", shrinks=True, only_wide=True),
        Column("user", lambda job: user_name(job["user"]), shrinks=True, only_wide=True),
        *_state_column(shown),
        Column("processes", lambda job: str(len(job["processes"])), is_number=True, only_wide=True),
        Column("processors", lambda job: job["placement"]["cpus"], shrinks=True, only_wide=True),
        Column("nodes", lambda job: job["placement"]["nodes"], shrinks=True),
        Column("memory", lambda job: size(job["bytes"]), is_number=True),
        Column(
            "off-node", lambda job: _bytes_off(job["bytes_off_node"], job["bytes"]), is_number=True
        ),
        Column("", lambda job: _share_off(job["bytes_off_node"], job["bytes"]), is_number=True),
        Column("where", bar, shrinks=True),
    )
    return make_table(columns, shown["jobs"], console)


def _host_column(shown: Json) -> tuple[Column[Json], ...]:
    """Return a column of hosts if the jobs are of several."""
    return (Column("host", lambda job: job["host"]),) if "hosts" in shown else ()


def _state_column(shown: Json) -> tuple[Column[Json], ...]:
    """Return a column that says which jobs are suspended, if any is."""
    if not any(job["suspended"] for job in shown["jobs"]):
        return ()
    return (Column("state", lambda job: "suspended" if job["suspended"] else ""),)


def _process_table(shown: Json, console: Console) -> Table:
    """Return the table of one target's processes, most off-node bytes first."""
    where = "residency" if console.width >= WIDE else "off_node"
    columns: tuple[Column[Json], ...] = (
        Column("pid", lambda each: str(each["pid"]), is_number=True),
        Column("command", lambda each: each["command"], shrinks=True),
        Column("nodes", lambda each: each["nodes"], shrinks=True),
        Column("memory", lambda each: size(_total(each["residency"])), is_number=True),
        Column(
            "off-node",
            lambda each: _bytes_off(_total(each["off_node"]), _total(each["residency"])),
            is_number=True,
        ),
        Column(
            "",
            lambda each: _share_off(_total(each["off_node"]), _total(each["residency"])),
            is_number=True,
        ),
        Column("where", lambda each: _where(each[where]), shrinks=True),
    )
    rows = sorted(shown["processes"], key=lambda each: _total(each["off_node"]), reverse=True)
    return make_table(columns, rows, console)


def _total(residency: Mapping[str, int]) -> int:
    return sum(residency.values())


def _where(residency: Mapping[str, int]) -> str:
    """Return residency in text, largest first, such as `0: 12.0 MiB, 2: 4.0 KiB`."""
    parts = sorted(by_number(residency).items(), key=lambda item: -item[1])
    return ", ".join(f"{node}: {size(part)}" for node, part in parts if part)


def _bytes_off(off: int, whole: int) -> Text:
    return Text(size(off) if off else "-", style=colour_of(off, whole))


def _share_off(off: int, whole: int) -> Text:
    return Text(percent(off, whole) if off else "", style=colour_of(off, whole))


def colour_of(off: int, whole: int) -> str:
    """Return the colour of how bad it is that `off` of `whole` bytes are off-node."""
    if off >= BAD_SHARE * whole > 0:
        return "bold red"
    return "yellow" if off >= BAD_SHARE / 10 * whole > 0 else ""


def _policies(processes: Sequence[Json]) -> list[RenderableType]:
    """Return notes on memory policies that bring memory to nodes on which it is off-node."""
    notes: list[RenderableType] = [
        Text(
            f"note: process {process['pid']}, on node {process['nodes']}: {each['policy']} governs"
            f" {PolicyCount(threads=len(each['threads']), bytes=each['bytes'])}"
        )
        for process in processes
        for each in process["off_node_policies"]
    ]
    if more := notes[_POLICIES_SHOWN:]:
        notes[_POLICIES_SHOWN:] = [Text(f"note: {len(more)} more such policies, see --json")]
    return notes
