"""What a strategy that decides page by page is asked, and what it answers.

def choose(pages: Pages) -> Choice:
    return [fast if is_hot(address) else None for address in pages.addresses]
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from schedhook.values.model import MemoryKind
from schedhook.values.sets import NodeSet


@dataclass(frozen=True, slots=True, kw_only=True)
class Pages:
    """Neighbouring pages of one process, all of one kind, size and node: one question."""

    pid: int
    kind: MemoryKind
    node: int
    """Where they lie."""
    page_size: int
    """Bytes of each; a huge page is one page."""
    addresses: range
    """Each page's first address, ascending."""
    allowed: NodeSet
    """Nodes with memory that the process may use: what may be answered."""
    aliases: Sequence[tuple[int, int]] = ()
    """Where else the same shared memory is mapped: (process, what to add to the addresses)."""

    @property
    def start(self) -> int:
        return self.addresses.start

    @property
    def end(self) -> int:
        return self.addresses.stop


Choice = int | None | Sequence[int | None]
"""A node for all pages asked about, None to leave them where they are, or one of these for each."""

PageChoice = Callable[[Pages], Choice]
