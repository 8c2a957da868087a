"""The progress bar of a relocation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
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
