"""A strategy for jobs of one large process and many small ones: the large one first.

Most of the remote accesses come from where most of the memory is, so it pays to begin there.
"""

from __future__ import annotations

import logging

from schedhook import StrategyPlugin, hookimpl
from schedhook.migration.move import Move, MovingProcess
from schedhook.values.model import Report


def size(process: MovingProcess) -> int:
    """Bytes in memory, on all nodes."""
    return sum(process.selection.residency.values())


def move(work: Move) -> None:
    """Sweep the processes in descending order of size."""
    work.refresh()
    work.sweep(sorted(work.processes, key=size, reverse=True))


@hookimpl
def schedhook_strategies() -> list[StrategyPlugin]:
    return [StrategyPlugin(name="largest-first", summary="the largest process first", move=move)]


@hookimpl
def schedhook_after_migrate(report: Report) -> None:
    logging.getLogger(__name__).info("moved %d bytes", report.bytes_moved)
