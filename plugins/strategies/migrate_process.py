"""Strategy `migrate-process`: move each process as a whole, by migrate_pages(2).

It makes one call per process if the map allows that. The kernel does not say what it left behind,
so residency is read again and the leftovers are moved page by page.
"""

from __future__ import annotations

from schedhook import StrategyPlugin, hookimpl
from schedhook.migration.move import Move


def move(work: Move) -> None:
    """Migrate all processes as a whole, then sweep what stayed behind."""
    work.migrate()


@hookimpl
def schedhook_strategies() -> list[StrategyPlugin]:
    return [
        StrategyPlugin(
            name="migrate-process",
            summary="the whole process at once, leftovers page by page (migrate_pages(2))",
            move=move,
            options=frozenset(),
        )
    ]
