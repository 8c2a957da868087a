"""Progress on a terminal: the bytes of a relocation, or how many of several things are done."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from schedhook.roles.request import Progress as ProgressFunction


@contextmanager
def progress_bar() -> Iterator[ProgressFunction]:
    """Show a bar with bytes, rate and time left on standard error; yield how to update it."""
    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(compact=True),
        console=console,
        transient=True,
        disable=not console.is_interactive,
    ) as bar:
        console.show_cursor()  # a hidden one would stay hidden if a signal kills the relocation
        task = bar.add_task("reading", total=None)
        yield lambda moved, planned: bar.update(
            task, description="moving", completed=min(moved, planned), total=planned
        )


@contextmanager
def counter(what: str, total: int) -> Iterator[Callable[[], None]]:
    """Show how many of `total` are done on standard error; yield what counts one more.

    There is none for a single thing. What is printed meanwhile stands above it.
    """
    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        console=console,
        transient=True,
        # Else what goes to a file or a pipe would end up on the terminal.
        redirect_stdout=sys.stdout.isatty(),
        disable=total < 2 or not console.is_interactive,
    ) as bar:
        console.show_cursor()  # as above
        task = bar.add_task(what, total=total)
        yield lambda: bar.advance(task)
