"""Ranges of a process's pages, as the C core takes them."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence

from schedhook.backends.native import _core
from schedhook.roles.backend import Failure, Limits, PageRun, Sweep
from schedhook.values.extents import Extents

Range = tuple[int, int, int, int, int, int, int, int, int, bool, int, int, bytes]
"""See _core.pyi."""


def sweep_range(
    pages: Range,
    destinations: Mapping[int, int],
    *,
    shared: bool,
    limits: Limits,
    only: Extents | None = None,
) -> tuple[Sweep, int]:
    """Move the pages of a range; return the result and the errno that ended it early, 0 if none."""
    moved, failures, calls, error = _core.sweep(
        pages,
        _table(destinations),
        only.raw() if only else b"",
        shared,
        limits.batch_bytes,
        int(limits.call_seconds * 1e9),
    )
    return Sweep(
        moved=dict(moved),
        failures=tuple(
            Failure(start=first, end=last, errno=number, size=size, page_size=page_size)
            for first, last, number, size, page_size in failures
        ),
        calls=calls,
    ), error


def locate_range(pages: Range) -> Sequence[PageRun]:
    """Return where the present pages of a range lie. Raise OSError."""
    return [
        PageRun(start=first, end=last, node=node, page_size=page_size, hidden=hidden)
        for first, last, node, page_size, hidden in _core.locate(*pages)
    ]


def find_boundary(pages: Range) -> int | None:
    """Return where the folio ends that the range's start cuts; the start if it cuts none.

    None if the caller cannot see folios: that needs CAP_SYS_ADMIN.
    """
    end: int = _core.boundary(*pages)
    return end or None


def _table(destinations: Mapping[int, int]) -> bytes:
    """Return an array of int32 by node number; -1 for nodes to leave alone.

    It is long enough for every node that is named.
    """
    table = array("i", [-1]) * (max([*destinations, *destinations.values()], default=0) + 1)
    for old, new in destinations.items():
        if old != new:
            table[old] = new
    return table.tobytes()
