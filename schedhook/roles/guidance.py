"""The part of a profile that a strategy uses, and the effect of its choice on the accesses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from schedhook.roles.profile import Accesses
from schedhook.roles.strategy import Choice, PageChoice, Pages
from schedhook.values.sets import NodeSet

MIN_SAMPLES = 2
MIN_SHARE = 0.6

Pair = tuple[int, int]
"""(accessing node, the memory's node)."""


@dataclass(slots=True)
class Effect:
    """Accesses of one process before and after the pages move."""

    before: dict[Pair, int] = field(default_factory=dict)
    after: dict[Pair, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """All accesses."""
        return sum(self.before.values())

    @property
    def local_before(self) -> int:
        """Accesses to memory on the accessing node, before the move."""
        return _local(self.before)

    @property
    def local_after(self) -> int:
        """Accesses to memory on the accessing node, after the move."""
        return _local(self.after)


@dataclass(frozen=True, slots=True, kw_only=True)
class Guidance:
    """A profile of a request's processes, with the thresholds for acting on it."""

    accesses: Mapping[int, Accesses]
    """By process."""
    nodes: NodeSet
    """The nodes on whose processors the processes may run: the job's placement."""
    min_samples: int = MIN_SAMPLES
    """A page with fewer accesses is left alone."""
    min_share: float = MIN_SHARE
    """The share of a page's accesses that its new node must have, 0 to 1."""
    effects: dict[int, Effect] = field(default_factory=dict)
    """The effect of the strategy's choice, by process; `watch` fills it in."""

    def sampled(self, pages: Pages) -> Iterator[tuple[int, dict[int, int]]]:
        """Yield the pages that were accessed: (index in `addresses`, accesses by node), ascending.

        Accesses of other processes to the same shared memory are included.
        """
        found: dict[int, dict[int, int]] = {}
        for pid, distance in ((pages.pid, 0), *pages.aliases):
            accesses = self.accesses.get(pid)
            if accesses is None:
                continue
            origin = pages.start + distance
            for address, node, count in accesses.between(origin, pages.end + distance):
                counts = found.setdefault((address - origin) // pages.page_size, {})
                counts[node] = counts.get(node, 0) + count
        yield from sorted(found.items())

    def watch(self, choose: PageChoice) -> PageChoice:
        """Return the same choice, which also records its effect on the accesses."""

        def watched(pages: Pages) -> Choice:
            choice = choose(pages)
            effect = self.effects.setdefault(pages.pid, Effect())
            for index, counts in self.sampled(pages):
                new = _answer(choice, index)
                for node, count in counts.items():
                    _count(effect.before, (node, pages.node), count)
                    _count(effect.after, (node, pages.node if new is None else new), count)
            return choice

        return watched


def _answer(choice: int | Sequence[int | None] | None, index: int) -> int | None:
    if choice is None or isinstance(choice, int):
        return choice
    return choice[index] if index < len(choice) else None


def _count(counts: dict[Pair, int], pair: Pair, count: int) -> None:
    counts[pair] = counts.get(pair, 0) + count


def _local(counts: Mapping[Pair, int]) -> int:
    return sum(count for (accessing, memory), count in counts.items() if accessing == memory)
