"""The screen of `schedhook show --hosts`: jobs of several hosts, while they answer and after."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from schedhook.cli.cluster import ClusterFootprints, describe_hosts
from schedhook.cli.output.bars import draw_legend
from schedhook.cli.output.footprint_chart import group_of_jobs, jobs_title
from schedhook.cli.output.remarks import notes_of_jobs, remedy_of_jobs
from schedhook.cli.output.show import colour_of, job_table
from schedhook.cli.output.text import off_node, size

_PAUSE_SECONDS = 0.2
"""Between two drawings: hundreds of hosts may answer within a second."""
_ROWS_AROUND = 8
"""The lines of a screen that are no jobs."""

Json = Mapping[str, Any]


def print_cluster(shown: Json) -> None:
    """Print what `show --hosts --json` has, for people."""
    console = Console(highlight=False)
    console.print(_screen(shown, console))


@contextmanager
def answers_shown(
    found: ClusterFootprints, seen: Callable[[str], None]
) -> Iterator[Callable[[str], None]]:
    """Show the first jobs of the hosts that have answered so far, if there is a terminal.

    Yield what is to be called after each answer with the host's name, which it hands on to `seen`.
    """
    console = Console(highlight=False)
    if not console.is_terminal or console.is_dumb_terminal or len(found.hosts) == 1:
        yield seen
        return
    drawn = 0.0
    with Live(
        console=console,
        auto_refresh=False,
        transient=True,
        # Else what goes to a file or a pipe would end up on the terminal.
        redirect_stderr=sys.stderr.isatty(),
    ) as live:
        console.show_cursor()  # a hidden one would stay hidden if a signal kills the command

        def show(host: str) -> None:
            nonlocal drawn
            seen(host)
            if time.monotonic() - drawn > _PAUSE_SECONDS:
                live.update(_first_rows(found, console), refresh=True)
                drawn = time.monotonic()

        yield show


def _first_rows(found: ClusterFootprints, console: Console) -> RenderableType:
    """Return the screen of as many jobs as the terminal has room for."""
    shown = found.to_dict()
    jobs = shown["jobs"][: max(console.height - _ROWS_AROUND, 1)]
    left_out = shown["jobs_left_out"] + len(shown["jobs"]) - len(jobs)
    waiting = len(found.hosts) - len(found.answers) - len(found.failures)
    head = Text(f"waiting for {waiting} of {len(found.hosts)} hosts", style="bright_black")
    return Group(head, _screen({**shown, "jobs": jobs, "jobs_left_out": left_out}, console))


def _screen(shown: Json, console: Console) -> RenderableType:
    jobs = shown["jobs"]
    whole, off = (sum(job[key] for job in jobs) for key in ("bytes", "bytes_off_node"))
    parts: list[RenderableType] = [
        Text(f"{jobs_title(shown)} on {describe_hosts(shown)}", style="bold"),
        Text(f"{size(whole)} of memory, {off_node(off, whole)}", style=colour_of(off, whole)),
    ]
    if jobs:
        parts += [job_table(shown, console), draw_legend(group_of_jobs(jobs), console)]
    return Group(*parts, *map(Text, [*notes_of_jobs(shown), *remedy_of_jobs(shown)]))
