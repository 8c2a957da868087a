"""The record that a move keeps of each process."""

from __future__ import annotations

from dataclasses import dataclass, field

from schedhook.migration.page_plan import PagePlan
from schedhook.migration.selection import ProcessSelection
from schedhook.roles.backend import Target


@dataclass(slots=True)
class MovingProcess:
    """One process of a relocation. A strategy may read it; only `Move` writes it."""

    target: Target
    selection: ProcessSelection = field(default_factory=ProcessSelection)
    """What the last reading of its memory found."""
    moved: dict[tuple[int, int], int] = field(default_factory=dict)
    """Bytes by (old node, new node)."""
    left: dict[str, int] = field(default_factory=dict)
    """Bytes that the last attempt left behind, by reason."""
    gone: bool = False
    """Its address space no longer exists: it exited or became another program."""
    before: ProcessSelection | None = None
    """What was found when the move began; None for a process that joined later."""
    memory_owner_pid: int | None = None
    """The process whose memory it uses, where that memory is counted and moved; else None."""
    page_plan: PagePlan | None = None
    """What a strategy that decides page by page has chosen; None with any other strategy."""

    @property
    def pid(self) -> int:
        return self.target.pid
