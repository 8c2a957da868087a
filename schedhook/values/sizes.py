"""Units of sizes, and sums of sizes by node, pair of nodes, reason, or any other key."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

MIB = 1 << 20
GIB = 1 << 30

_K = TypeVar("_K")


def sum_sizes(parts: Iterable[Mapping[_K, int]]) -> dict[_K, int]:
    """Return the sum of all parts, key by key."""
    total: dict[_K, int] = {}
    for part in parts:
        add_sizes(total, part)
    return total


def add_sizes(total: dict[_K, int], more: Mapping[_K, int]) -> None:
    """Add `more` to `total`, key by key."""
    for key, size in more.items():
        total[key] = total.get(key, 0) + size
