"""Which new processor takes the place of which old one."""

from __future__ import annotations

from collections.abc import Iterable

from schedhook.values.sets import CpuSet


def successors(old: CpuSet, new: CpuSet) -> dict[int, int]:
    """Return the n-th new processor for the n-th old one.

    If there are fewer new ones, counting starts again at the first; if there is none, the result is
    empty.
    """
    places = list(new)
    return {cpu: places[n % len(places)] for n, cpu in enumerate(old)} if places else {}


def relative(cpus: Iterable[int], old: CpuSet, new: CpuSet) -> CpuSet:
    """Return the processors of `new` that take the place of `cpus`, which are some of `old`.

    All of the old ones become all of the new ones, and so do processors that are not among the old.
    """
    inside = old & cpus
    if not inside or inside == old:
        return new
    then = successors(old, new)
    return CpuSet(then[cpu] for cpu in inside)
