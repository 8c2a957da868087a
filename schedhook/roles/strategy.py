"""The question that a strategy which decides page by page gets, and its answer.

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
    """Contiguous pages of one process, of one kind, size and node: one question."""

    pid: int
    kind: MemoryKind
    node: int
    """The node on which they lie."""
    page_size: int
    """Bytes of each; a huge page is one page."""
    addresses: range
    """Each page's first address, ascending."""
    allowed: NodeSet
    """Nodes with memory that the process may use: the possible answers."""
    aliases: Sequence[tuple[int, int]] = ()
    """Other mappings of the same shared memory: (pid, what to add to the addresses)."""

    @property
    def start(self) -> int:
        return self.addresses.start

    @property
    def end(self) -> int:
        return self.addresses.stop


Choice = int | None | Sequence[int | None]
"""A node for all pages of the question, None to leave them there, or one of these for each page."""

PageChoice = Callable[[Pages], Choice]
"""Answers the questions about all pages of a relocation, one call for each question."""
