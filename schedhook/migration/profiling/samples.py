"""Samples of accesses on their way into a profile: checked, counted, told to a node."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from schedhook.host.topology import Topology
from schedhook.roles.profile import MOST_NODES, Profile

_FIRST = 4096
_KERNEL = 1 << 63
_MOST_WEIGHT = 1 << 32
_MOST_PID = 1 << 22


@dataclass(slots=True)
class Tally:
    """What became of the lines and samples of a log. All but the first two count accesses."""

    lines: int = 0
    """Lines that say something: neither blank nor a comment."""
    bad_lines: int = 0
    """Those that are no sample, or cannot be made sense of."""
    samples: int = 0
    """All accesses that were read."""
    no_address: int = 0
    kernel: int = 0
    """To the kernel's own memory."""
    unknown_node: int = 0
    """From a processor or node that is not online."""
    cache_hits: int = 0
    """Answered by a cache of the processor that asked."""
    dropped: int = 0
    """Of the least used pages, where there were too many pages to count."""


class Collector:
    """Puts samples into a profile."""

    def __init__(self, profile: Profile, topology: Topology, *, count_cache_hits: bool) -> None:
        self.tally = Tally()
        self._profile = profile
        self._strict = not count_cache_hits
        # Where a node has no memory, the nearest one that has is as local as can be.
        self._homes = {n: topology.home_of(n) for n in topology.nodes if n < MOST_NODES}
        self._node_of = {cpu: n for n in self._homes for cpu in topology.nodes[n].cpus}

    def bad(self, count: int = 1) -> None:
        """Lines that are no samples."""
        self.tally.bad_lines += count

    def node_of(self, cpu: int) -> int:
        """The node of a processor, -1 where it is not online."""
        return self._node_of.get(cpu, -1)

    def add(
        self, process: int, node: int, address: int, count: int = 1, *, cached: bool = False
    ) -> None:
        """Accesses of a process or thread from a node. ValueError for numbers that cannot be."""
        if not (0 <= process <= _MOST_PID and 0 < count <= _MOST_WEIGHT):
            raise ValueError("not a process, or not a number of accesses")
        tally = self.tally
        tally.samples += count
        if _FIRST <= address < _KERNEL and node in self._homes and not (cached and self._strict):
            self._profile.add(process, address, self._homes[node], count)
        elif address >= _KERNEL:
            tally.kernel += count
        elif address < _FIRST:
            tally.no_address += count
        elif node not in self._homes:
            tally.unknown_node += count
        else:
            tally.cache_hits += count


def number(value: object) -> int:
    """A whole number as logs write it: decimal, or hexadecimal after 0x. ValueError."""
    if isinstance(value, str):
        text = value.strip()
        return int(text, 16) if text[:2] in ("0x", "0X") else int(text)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    raise ValueError(f"{value!r} is no whole number")


def first_of(names: Iterable[str], known: Iterable[str]) -> str | None:
    """The first of `names` that is among `known`."""
    there = set(known)
    return next((name for name in names if name in there), None)
