"""Check samples of accesses, find their nodes, and add them to a profile."""

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
    """Counts of the lines and samples of a log. All but the first two count accesses."""

    lines: int = 0
    """Lines that are neither blank nor a comment."""
    bad_lines: int = 0
    """Lines that are not a sample or cannot be parsed."""
    samples: int = 0
    """All accesses that were read."""
    no_address: int = 0
    kernel: int = 0
    """Accesses to the kernel's own memory."""
    unknown_node: int = 0
    """Accesses from a processor or node that is not online."""
    cache_hits: int = 0
    """Accesses that a cache of the accessing processor answered."""
    dropped: int = 0
    """Accesses to the least used pages, if there were too many pages to count."""


class Collector:
    """Adds samples to a profile."""

    def __init__(self, profile: Profile, topology: Topology, *, count_cache_hits: bool) -> None:
        self.tally = Tally()
        self._profile = profile
        self._strict = not count_cache_hits
        # For a node without memory, the nearest node with memory counts as local.
        homes = {n: list(topology.homes_of(n)) for n in topology.nodes if n < MOST_NODES}
        self._homes = {n: its[0] for n, its in homes.items() if its}
        self._node_of = {cpu: n for n in self._homes for cpu in topology.nodes[n].cpus}

    def bad(self, count: int = 1) -> None:
        """Count lines that are not samples."""
        self.tally.bad_lines += count

    def node_of(self, cpu: int) -> int:
        """Return the node of a processor; -1 if it is not online."""
        return self._node_of.get(cpu, -1)

    def add(
        self, process: int, node: int, address: int, count: int = 1, *, cached: bool = False
    ) -> None:
        """Add accesses of a process or thread from a node. Raise ValueError for invalid numbers."""
        if not (0 <= process <= _MOST_PID and 0 < count <= _MOST_WEIGHT):
            raise ValueError("not the number of a process, or not a number of accesses")
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


def number(value: object, *, hexadecimal: bool = False) -> int:
    """Return a whole number of a log: decimal, or hexadecimal after 0x. Raise ValueError.

    `hexadecimal`: text is so without 0x, too.
    """
    if isinstance(value, str):
        text = value.strip()
        return int(text, 16) if hexadecimal or text[:2] in ("0x", "0X") else int(text)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    raise ValueError(f"{value!r} is not a whole number")


def first_of(names: Iterable[str], known: Iterable[str]) -> str | None:
    """Return the first of `names` that is in `known`; None if none is."""
    present = set(known)
    return next((name for name in names if name in present), None)
