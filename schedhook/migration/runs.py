"""Where the pages of an area are, part by part, so that memory use stays bounded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from schedhook.roles.backend import Memory, PageRun
from schedhook.values.extents import Extents
from schedhook.values.model import Area

UNIT_BYTES = 32 << 20
"""Resident memory per part, unless a page is larger: small enough to spread over threads."""


def spread(target: Memory, area: Area) -> Iterator[tuple[int, int]]:
    """Yield parts [start, end) of an area, each with up to about UNIT_BYTES of resident memory.

    With a little more, a call of the default `batch_bytes` would leave a rest to one more call. No
    page that moves as one lies in two parts, as far as the target can tell.
    """
    step = area.size // max(1, -(-area.resident // UNIT_BYTES))
    start = area.start
    while start < area.end:
        end = min(area.end, target.boundary(area, start + step))
        yield start, end
        start = end


def last_cut(target: Memory, area: Area, start: int, at: int) -> int:
    """Return the last address in (start, at] at which no page that moves as one is cut.

    Return `start` if none is found, such as in a folio of which the beginning is not mapped.
    """
    at = at // area.page_size * area.page_size
    if at == start or (end := target.boundary(area, at)) == at:
        return at
    size, largest = area.page_size, target.page_sizes.largest(area.page_size)
    while size <= largest and end - size > start:  # a folio's size is a power of two
        if end - size < at and target.boundary(area, end - size) == end - size:
            return end - size
        size *= 2
    return start


def locate(target: Memory, area: Area, only: Extents | None = None) -> Iterator[PageRun]:
    """Yield the runs of an area's present pages, or of those in `only`, ascending.

    Raise ProcessGoneError if the process has exited.
    """
    only = area.parts if only is None else only
    for start, end in spread(target, area):
        for run in target.locate(area, start, end):
            yield from clip(run, only)


def clip(run: PageRun, only: Extents | None) -> Iterator[PageRun]:
    """Yield the parts of a run that lie in `only`; all of it if that is None."""
    if only is None:
        yield run
    else:
        for first, last in only.within(run.start, run.end):
            yield replace(run, start=first, end=last)
