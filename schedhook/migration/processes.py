"""The record that a move keeps of each process."""

from __future__ import annotations

from dataclasses import dataclass, field

from schedhook.migration.page_plan import PagePlan
from schedhook.migration.policies import ProcessPolicies, collect_policies
from schedhook.migration.selection import ProcessSelection
from schedhook.roles.backend import Target
from schedhook.values.errors import ProcessGoneError


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
    policies: ProcessPolicies = field(default_factory=ProcessPolicies)
    """The memory policies that were found when the plan was made."""
    page_plan: PagePlan | None = None
    """What a strategy that decides page by page has chosen; None with any other strategy."""

    @property
    def pid(self) -> int:
        return self.target.pid

    def read_policies(self) -> ProcessPolicies:
        """Return its memory policies: its threads' read now, its areas' from the last reading."""
        areas = self.selection.areas
        try:
            threads = self.target.thread_policies(areas) if areas and not self.gone else {}
        except ProcessGoneError:
            threads = {}
        return collect_policies(areas, threads)
