"""The records that a move keeps of each process, and of each shared-memory object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from schedhook.migration.page_plan import PagePlan
from schedhook.migration.policies import ProcessPolicies, collect_policies
from schedhook.migration.selection import ProcessSelection
from schedhook.roles.backend import Memory, SharedObject, Target
from schedhook.values.errors import ProcessGoneError


@dataclass(slots=True)
class MovingMemory:
    """Memory that moves: of a process, or of an object."""

    target: Memory
    selection: ProcessSelection = field(default_factory=ProcessSelection)
    """What the last reading of its memory found."""
    moved: dict[tuple[int, int], int] = field(default_factory=dict)
    """Bytes by (old node, new node)."""
    left: dict[str, int] = field(default_factory=dict)
    """Bytes that the last attempt left behind, by reason."""
    settled: dict[str, int] = field(default_factory=dict)
    """Bytes that finished steps of the map left behind, by reason; see `Move.steps`."""
    gone: bool = False
    """It no longer exists: the process exited or became another program, no process maps the
    object."""
    before: ProcessSelection | None = None
    """What was found when the move began; None if it joined later."""


@dataclass(slots=True)
class MovingObject(MovingMemory):
    """The pages of a shared-memory object that no process maps."""

    target: SharedObject


@dataclass(slots=True)
class MovingProcess(MovingMemory):
    """One process of a relocation. A strategy may read it; only `Move` writes it."""

    target: Target
    memory_owner_pid: int | None = None
    """The process whose memory it uses, where that memory is counted and moved; else None."""
    policies: ProcessPolicies = field(default_factory=ProcessPolicies)
    """The memory policies that were found when the plan was made."""
    page_plan: PagePlan | None = None
    """What a strategy that decides page by page has chosen; None with any other strategy."""
    objects: list[MovingObject] = field(default_factory=list)
    """Objects that are counted with this process."""
    unmapped: int = 0
    """Bytes on old nodes that no process maps, of objects that could not be looked into."""

    @property
    def pid(self) -> int:
        return self.target.pid

    @property
    def parts(self) -> Sequence[MovingMemory]:
        """All memory that is counted with this process: what it maps, and its objects."""
        return self, *self.objects

    def read_policies(self) -> ProcessPolicies:
        """Return its memory policies: its threads' read now, its areas' from the last reading."""
        areas = self.selection.areas
        try:
            threads = self.target.thread_policies(areas) if areas and not self.gone else {}
        except ProcessGoneError:
            threads = {}
        return collect_policies(areas, threads)
