"""Strategy `move-pages`: move memory page by page, by move_pages(2).

It gives a reason for each page that stays, can carry out any node map, and moves in parallel.
"""

from __future__ import annotations

from schedhook import StrategyPlugin, hookimpl
from schedhook.migration.move import Move


def move(work: Move) -> None:
    """Sweep all processes, and retry what may still move."""
    work.sweep()


@hookimpl
def schedhook_strategies() -> list[StrategyPlugin]:
    return [
        StrategyPlugin(
            name="move-pages",
            summary="page by page, with a reason for each page that stays (move_pages(2))",
            move=move,
            options=frozenset(),
        )
    ]
