"""Strategy `hot-first`: move the pages that are used most before all others, by move_pages(2).

Under a limit on bandwidth most accesses are local long before all of the memory has moved.
"""

from __future__ import annotations

from schedhook import StrategyPlugin, hookimpl
from schedhook.migration.move import Move


def move(work: Move) -> None:
    """Move the hottest pages, then sweep everything, and retry what may still move."""
    from schedhook.migration.heat import find_heat  # noqa: PLC0415 - only if it is chosen

    work.move_first(find_heat(work))
    work.sweep()


@hookimpl
def schedhook_strategies() -> list[StrategyPlugin]:
    return [
        StrategyPlugin(
            name="hot-first",
            summary="like move-pages, and the pages that are used most come first (DAMON)",
            move=move,
            options=frozenset(),
        )
    ]
