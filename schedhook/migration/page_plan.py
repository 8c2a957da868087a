"""The plan of a strategy that decides page by page, for one process."""

from __future__ import annotations

from dataclasses import dataclass, field

from schedhook.roles.backend import Target
from schedhook.values.extents import Extents
from schedhook.values.model import Area, MemoryKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """Pages in the part [start, end) of an area that must go from one node to another."""

    area: Area
    shared: bool
    start: int
    end: int
    old: int
    new: int
    pages: Extents


@dataclass(slots=True)
class PagePlan:
    """What the strategy decided for one process. Sizes in bytes."""

    transfers: list[Transfer] = field(default_factory=list)
    moves: dict[tuple[int, int], int] = field(default_factory=dict)
    """By (old node, new node)."""
    huge: dict[tuple[int, int], int] = field(default_factory=dict)
    """The part of `moves` that is taken from pools of huge pages."""
    kept: int = 0
    """Pages that the strategy leaves where they are."""
    unreachable: int = 0
    """Pages that it could not be asked about; see schedhook.migration.unreachable."""

    def add(self, transfer: Transfer) -> None:
        """Add a transfer, and count its bytes."""
        pair, size = (transfer.old, transfer.new), transfer.pages.size
        self.transfers.append(transfer)
        self.moves[pair] = self.moves.get(pair, 0) + size
        if transfer.area.kind is MemoryKind.HUGE:
            self.huge[pair] = self.huge.get(pair, 0) + size

    def bytes_astray(self, target: Target) -> int:
        """Return the planned bytes that are not on their new node and not hidden, read now.

        Raise ProcessGoneError if the process has exited.
        """
        return sum(
            transfer.pages.overlap(run.start, run.end)
            for transfer in self.transfers
            for run in target.locate(transfer.area, transfer.start, transfer.end)
            if run.node != transfer.new and not run.hidden
        )
