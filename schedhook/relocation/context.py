"""What the steps of one relocation share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from schedhook.control.rollback import Rollback
from schedhook.migration.headroom import Headroom
from schedhook.plugins.manager import Plugins
from schedhook.relocation.members import Members
from schedhook.relocation.settings import Settings
from schedhook.roles.backend import Backend
from schedhook.roles.request import Progress
from schedhook.values.sets import CpuSet


@dataclass(frozen=True, slots=True, kw_only=True)
class Transit:
    """What relocations share whose memory moves in turns, through little room."""

    headroom: Headroom
    cpus_for: Callable[[int], CpuSet]
    """Returns the processor that moves pages to a node: it has free pages of that node that no
    other processor gets. Empty if the request or the configuration says how many threads do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What every step of one relocation may use."""

    settings: Settings
    backend: Backend
    plugins: Plugins
    members: Members
    rollback: Rollback
    root: Path
    """The directory under which the host's files lie."""
    progress: Progress | None
    began: float
    """time.monotonic() at the start."""
    notes: list[str]
    """Sentences for the report; every step adds its own."""
    transit: Transit | None = None
    """What it shares with other relocations; None if it is carried out by itself."""
