"""A strategy for jobs with one large process and many small ones: move the large one first.

Most remote accesses are to the process with the most memory, so moving it first helps soonest.
"""

from __future__ import annotations

import logging

from schedhook import StrategyPlugin, hookimpl
from schedhook.migration.move import Move, MovingProcess
from schedhook.values.model import Report


def size(process: MovingProcess) -> int:
    """Return the process's resident memory in bytes, on all nodes."""
    return sum(process.selection.residency.values())


def move(work: Move) -> None:
    """Sweep the processes in descending order of size."""
    work.refresh()
    work.sweep(sorted(work.processes, key=size, reverse=True))


@hookimpl
def schedhook_strategies() -> list[StrategyPlugin]:
    """Register the strategy `largest-first`."""
    return [StrategyPlugin(name="largest-first", summary="the largest process first", move=move)]


@hookimpl
def schedhook_after_migrate(report: Report) -> None:
    """Log how much a relocation moved."""
    logging.getLogger(__name__).info("moved %d bytes", report.bytes_moved)
