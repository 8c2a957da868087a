"""Deciding page by page: what a strategy is asked, what it may answer, and what follows from it.

def choose(pages: Pages) -> Choice:
    return [fast if is_hot(address) else None for address in pages.addresses]
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from schedhook.roles.backend import PageRun
from schedhook.roles.strategy import PageChoice, Pages
from schedhook.values.errors import PluginError, RefusedError
from schedhook.values.extents import Extents
from schedhook.values.model import Area, MemoryKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """Pages of a part [start, end) of an area that shall go from one node to another."""

    area: Area
    shared: bool
    start: int
    end: int
    old: int
    new: int
    pages: Extents


@dataclass(slots=True)
class PagePlan:
    """What was decided for one process. Sizes in bytes."""

    transfers: list[Transfer] = field(default_factory=list)
    moves: dict[tuple[int, int], int] = field(default_factory=dict)
    """By (old node, new node)."""
    huge: dict[tuple[int, int], int] = field(default_factory=dict)
    """The part of `moves` that is taken from pools of huge pages."""
    kept: int = 0
    """What the strategy leaves where it is."""
    unreachable: int = 0
    """What it could not be asked about; see schedhook.migration.unreachable."""

    def add(self, transfer: Transfer) -> None:
        pair, size = (transfer.old, transfer.new), transfer.pages.size
        self.transfers.append(transfer)
        self.moves[pair] = self.moves.get(pair, 0) + size
        if transfer.area.kind is MemoryKind.HUGE:
            self.huge[pair] = self.huge.get(pair, 0) + size


class AskedOnce:
    """Sees to it that pages of shared memory are asked about once, whoever maps them."""

    def __init__(self) -> None:
        self._asked: dict[tuple[str, int], dict[tuple[int, int], Extents]] = {}
        """By object, then by mapping (process, address): offsets in the object."""

    def fresh(self, pid: int, area: Area, runs: Iterable[PageRun]) -> Iterator[PageRun]:
        """What of an area's runs, ascending, no other mapping had."""
        if not (area.is_shared and area.object_key):
            yield from runs
            return
        device, inode, offset = area.object_key
        asked = self._asked.setdefault((device, inode), {})
        mine = asked.setdefault((pid, area.start), Extents())
        others = [each for each in asked.values() if each is not mine and each]
        shift = offset - area.start
        for run in runs:
            for part in _unknown(run, others, shift):
                mine.add(part.start + shift, part.end + shift)
                yield part


def _unknown(run: PageRun, known: Sequence[Extents], shift: int) -> Iterator[PageRun]:
    start, end = run.start + shift, run.end + shift
    sizes = [size for each in known if (size := each.overlap(start, end))]
    if not sizes:
        yield run
    elif max(sizes) < end - start:
        fresh = Extents()
        for page in range(run.start, run.end, run.page_size):
            at = page + shift
            if not any(each.overlap(at, at + run.page_size) for each in known):
                fresh.add(page, page + run.page_size)
        for first, last in fresh:
            yield replace(run, start=first, end=last)


def decide(pages: Pages, choose: PageChoice) -> Iterator[tuple[int, int, int]]:
    """Ask about these pages; yields (start, end, node) of those that shall move, ascending.

    PluginError for an answer of another length than the question's, RefusedError for a node that
    the process may not use.
    """
    choice = choose(pages)
    if choice is None:
        return
    count = len(pages.addresses)
    answers = [choice] * count if isinstance(choice, int) else choice
    if len(answers) != count:
        raise PluginError(
            f"the strategy answered for {len(answers)} pages and was asked of {count}"
        )
    position = 0
    while position < count:
        node, first = answers[position], position
        while position < count and answers[position] == node:
            position += 1
        if node is None or node == pages.node:
            continue
        start, end = pages.start + first * pages.page_size, pages.start + position * pages.page_size
        if node not in pages.allowed:
            raise RefusedError(
                f"the strategy wants page {start:#x} of process {pages.pid} on node {node}, where"
                f" it may not be: the process may use node {pages.allowed}"
            )
        yield start, end, node
