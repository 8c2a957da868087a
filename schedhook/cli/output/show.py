"""The screens of `schedhook show`: one target, all jobs, and either again and again."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from schedhook.cli.output import charts
from schedhook.cli.output.bars import draw, draw_bar, draw_legend
from schedhook.cli.output.charts import Bar, Tone
from schedhook.cli.output.tables import cell, fitted_table
from schedhook.cli.output.text import BAD_SHARE, by_number, count, percent, size, when
from schedhook.values.text import printable

_WIDE = 100
"""Columns from which on there is room for more than the essential ones."""


def print_shown(shown: Mapping[str, Any]) -> None:
    """Print what `show --json` has."""
    console = Console(highlight=False)
    console.print(_screen(shown, console))


def watch(read: Callable[[], Mapping[str, Any]], seconds: float) -> None:
    """Show what `read` returns every `seconds` seconds, until it raises or is interrupted.

    Where there is no screen that could be drawn over, one after the other.
    """
    console = Console(highlight=False)
    if console.is_terminal and not console.is_dumb_terminal:
        with Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                live.update(_dated(_screen(read(), console), seconds), refresh=True)
                time.sleep(seconds)
    while True:
        console.print(_dated(_screen(read(), console), seconds))
        time.sleep(seconds)


def _dated(screen: RenderableType, seconds: float) -> RenderableType:
    head = f"{when(time.time())}, every {seconds:g} s"
    return Group(Text(head, style="bright_black"), screen)


def _screen(shown: Mapping[str, Any], console: Console) -> RenderableType:
    return _jobs(shown, console) if "jobs" in shown else _target(shown, console)


def _target(shown: Mapping[str, Any], console: Console) -> RenderableType:
    """One job, or some processes."""
    chart = charts.of_footprint(shown)
    parts: list[RenderableType] = [Text(chart.title, style="bold"), Text(chart.facts[0])]
    parts.append(_judged(chart.facts[1], shown["bytes_off_node"], shown["bytes"]))
    whole = chart.groups[0]
    if whole.bars:
        parts += ["", draw(whole, console), draw_legend(whole, console)]
    if len(shown["processes"]) > 1:
        parts.append(_processes(shown, console))
    return Group(*parts, *_unreadable(shown["unreadable"]))


def _jobs(shown: Mapping[str, Any], console: Console) -> RenderableType:
    """Every job on the host, the worst first."""
    chart = charts.of_jobs(shown)
    whole = sum(job["bytes"] for job in shown["jobs"])
    off = sum(job["bytes_off_node"] for job in shown["jobs"])
    parts: list[RenderableType] = [
        Text(chart.title, style="bold"),
        _judged(chart.facts[0], off, whole),
    ]
    parts.append(_job_table(shown, console) if shown["jobs"] else "")
    parts += [draw(chart.groups[0], console), draw_legend(chart.groups[0], console)]
    parts += [Text(f"note: {printable(problem)}") for problem in shown["problems"]]
    return Group(*parts, *_unreadable(sum(job["unreadable"] for job in shown["jobs"])))


def _job_table(shown: Mapping[str, Any], console: Console) -> Table:
    wide = console.width >= _WIDE
    more = ("processes", "processors") if wide else ()
    table = fitted_table("job", *more, "nodes", "memory", "off-node", "", "where")
    largest = max(job["bytes"] for job in shown["jobs"])
    for job in shown["jobs"]:
        where = job["placement"]
        name = f"{job['scheduler']} {job['job']}"
        how = (str(len(job["processes"])), where["cpus"]) if wide else ()
        off, whole = job["bytes_off_node"], job["bytes"]
        bar = Bar(label="", parts=((Tone.HOME, whole - off), (Tone.OFF, off)))
        table.add_row(
            *(cell(text) for text in (name, *how, where["nodes"], size(whole))),
            *_off_node(off, whole),
            draw_bar(bar, max(largest, 1), 16 if wide else 10, console),
        )
    return table


def _processes(shown: Mapping[str, Any], console: Console) -> Table:
    """The processes of one target, most off-node bytes first."""
    table = fitted_table("pid", "command", "nodes", "memory", "off-node", "", "where")
    wide = console.width >= _WIDE
    for each in sorted(shown["processes"], key=_off_node_of, reverse=True):
        whole, off = sum(each["residency"].values()), _off_node_of(each)
        row = (str(each["pid"]), printable(each["command"]), each["nodes"], size(whole))
        table.add_row(
            *(cell(text) for text in row),
            *_off_node(off, whole),
            cell(_where(each["residency"] if wide else each["off_node"])),
        )
    return table


def _off_node_of(process: Mapping[str, Any]) -> int:
    return sum(process["off_node"].values())


def _where(residency: Mapping[str, int]) -> str:
    """`0: 12.0 MiB, 2: 4.0 KiB`, largest first."""
    parts = sorted(by_number(residency).items(), key=lambda item: -item[1])
    return ", ".join(f"{node}: {size(part)}" for node, part in parts if part)


def _off_node(part: int, whole: int) -> tuple[Text, Text]:
    """The two cells, in the colour of how bad it is."""
    if not part:
        return Text("-"), Text("")
    style = _style(part, whole)
    return Text(size(part), style=style), Text(percent(part, whole), style=style)


def _judged(text: str, part: int, whole: int) -> Text:
    return Text(text, style=_style(part, whole))


def _style(part: int, whole: int) -> str:
    if part >= BAD_SHARE * whole > 0:
        return "bold red"
    return "yellow" if part >= BAD_SHARE / 10 * whole > 0 else ""


def _unreadable(number: int) -> list[RenderableType]:
    if not number:
        return []
    return [Text(f"note: {count(number, 'process')} may not be read; run as root")]
