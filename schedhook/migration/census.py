"""Count each physical page once, however often processes map it.

Only areas that numa_maps says to hold pages with several mappings are looked at page by page, and
only if another area of the job can be one of these. The backend tells pages apart by their frames.
If it cannot, a page of an object is known by its offset there, and pages that processes share since
fork(2) are counted in each of them: the numbers are upper bounds.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from schedhook.migration.runs import locate
from schedhook.roles.backend import Backend, PageRun, PageSet, Part, Target
from schedhook.values.errors import ProcessGoneError
from schedhook.values.extents import Extents
from schedhook.values.model import Area, MemoryKind, Residency
from schedhook.values.objects import ObjectId


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """The pages of one area that count there, because no area before it had them."""

    residency: Residency
    """Bytes by node."""
    only: Extents | None = None
    """Where they are; None: they are all of the area's pages."""


_NOTHING = Share(residency={}, only=Extents())


class Census:
    """Counts areas one after the other, and in each only the pages that no earlier one had."""

    def __init__(self, backend: Backend, target_of: Callable[[int], Target | None]) -> None:
        """`target_of` returns the target of a process; None if it cannot be held."""
        self._backend = backend
        self._target_of = target_of
        self._seen: PageSet | None = None
        self._began = False
        self._unknown: set[int] = set()
        """Processes with private pages that the backend could not tell apart."""
        self._offsets = _OffsetSet()
        self._whole = _Windows()

    def restart(self) -> Census:
        """Return another one, which has not counted anything."""
        return Census(self._backend, self._target_of)

    @property
    def is_exact(self) -> bool:
        """Whether every page was counted once; else the numbers are upper bounds."""
        return len(self._unknown) < 2

    def count(self, pid: int, area: Area, part: Part = Part.ALL) -> Share:
        """Return the pages of an area's part that no area before had.

        The area is one of those that `find_common` has found. A process that has exited has none.
        """
        if part is Part.ALL and self._whole.contain(area):
            return _NOTHING
        try:
            share = self._by_frame(pid, area, part) or self._by_offset(pid, area)
        except ProcessGoneError:
            return _NOTHING
        if part is Part.ALL:
            self._whole.add(area)
        return share

    def count_alone(self, pid: int, area: Area, part: Part) -> Share | None:
        """Return the pages of an area's part, of which no other area can have any.

        None if the backend cannot tell which they are.
        """
        try:
            return self._survey(pid, area, part, None)
        except ProcessGoneError:
            return _NOTHING

    def _by_frame(self, pid: int, area: Area, part: Part) -> Share | None:
        seen = self._page_set()
        if seen is None and part is Part.ALL:
            return None
        if seen is None:
            self._unknown.add(pid)
        return self._survey(pid, area, part, seen)

    def _by_offset(self, pid: int, area: Area) -> Share:
        target = self._target_of(pid)
        if not (area.is_shared and area.object_id):
            self._unknown.add(pid)
            return Share(residency=area.residency)
        if target is None:  # nothing tells which of the pages another area has
            known = self._whole.begin_with(area)
            return _NOTHING if known else Share(residency=area.residency)
        return _share_of(self._offsets.fresh(pid, area, locate(target, area)))

    def _survey(self, pid: int, area: Area, part: Part, seen: PageSet | None) -> Share | None:
        target = self._target_of(pid)
        found = target.survey(area, part, seen) if target else None
        return Share(residency=found.residency, only=found.pages) if found else None

    def _page_set(self) -> PageSet | None:
        if not self._began:
            self._began, self._seen = True, self._backend.page_set()
        return self._seen


def find_common(areas_by_pid: Mapping[int, Sequence[Area]]) -> set[tuple[int, int]]:
    """Return (pid, start) of the areas that may hold a page which another one of these has too."""
    overlaps = _Overlaps(forked=len(areas_by_pid) > 1)
    for pid, areas in areas_by_pid.items():
        for area in areas:
            overlaps.add(pid, area)
    return overlaps.of_objects() | overlaps.of_copies()


def mapped_twice(areas: Sequence[Area]) -> set[int]:
    """Return the starts of the areas of one process that map the same part of an object."""
    overlaps = _Overlaps()
    for area in areas:
        if area.object_id:
            overlaps.add(0, area)
    return {start for _, start in overlaps.of_objects()}


def _has_common_pages(area: Area) -> bool:
    # The kernel counts one mapping if processes share the page table of a pool's pages.
    return area.most_mappers > 1 or (area.is_shared and area.kind is MemoryKind.HUGE)


def _share_of(runs: Iterator[PageRun]) -> Share:
    residency: dict[int, int] = {}
    only = Extents()
    for run in runs:
        residency[run.node] = residency.get(run.node, 0) + run.end - run.start
        only.add(run.start, run.end)
    return Share(residency=residency, only=only)


class _Window(NamedTuple):
    """A part of an object, or of an address space."""

    start: int
    end: int
    key: tuple[int, int]
    """(pid, start) of the area."""
    is_common: bool
    """Whether numa_maps shows pages with several mappings there."""


class _Overlaps:
    """Finds areas that map the same part of an object, or that have shared pages without one.

    numa_maps shows several mappings for one of two such areas at least, not always for both: of a
    transparent huge page that one process maps as such, and another one page by page, it counts
    the mappings of the first page only.
    """

    def __init__(self, *, forked: bool = False) -> None:
        """`forked`: some areas may be of a process that another one has made."""
        self._forked = forked
        self._by_object: dict[ObjectId, list[_Window]] = {}
        self._own: list[_Window] = []
        """The areas without an object, as parts of an address space that fork(2) has copied."""
        self._copies: set[tuple[int, int]] = set()

    def add(self, pid: int, area: Area) -> None:
        key, is_common = (pid, area.start), _has_common_pages(area)
        if not area.object_id and not (is_common or self._forked):
            return
        if not area.object_id:
            self._own.append(_Window(area.start, area.end, key, is_common))
            return
        window = _Window(area.offset, area.offset + area.size, key, is_common)
        self._by_object.setdefault(area.object_id, []).append(window)
        if is_common and area.copied:  # else it may be pages of the file that others map
            self._copies.add(key)

    def of_objects(self) -> set[tuple[int, int]]:
        """Return the areas that map the same part of an object."""
        return set[tuple[int, int]]().union(*map(_overlapping, self._by_object.values()))

    def of_copies(self) -> set[tuple[int, int]]:
        """Return the areas with private pages that are shared since fork(2), or merged by KSM."""
        # The other area can be anywhere, but is at the same addresses as a rule.
        found = {window.key for window in self._own if window.is_common}
        if len(found | self._copies) > 1:
            found |= self._copies
        return found | _overlapping(self._own)


def _overlapping(windows: Iterable[_Window]) -> set[tuple[int, int]]:
    """Return the keys of the windows that overlap, in groups of which one at least is common."""
    found, group, end = set[tuple[int, int]](), list[_Window](), -1
    for window in sorted(windows):
        if window.start >= end:
            found |= _keys_of(group)
            group = []
        group.append(window)
        end = max(end, window.end)
    return found | _keys_of(group)


def _keys_of(group: Sequence[_Window]) -> set[tuple[int, int]]:
    if len(group) < 2 or not any(window.is_common for window in group):
        return set()
    return {window.key for window in group}


class _Windows:
    """Parts of objects of which every page was counted."""

    def __init__(self) -> None:
        self._known: dict[ObjectId, _Ranges] = {}
        self._begun: set[tuple[ObjectId, int]] = set()

    def add(self, area: Area) -> None:
        """Add the area's part of its object if all of its pages are present and the object's."""
        if area.object_id and not area.copied and area.resident == area.size:
            known = self._known.setdefault(area.object_id, _Ranges())
            known.add(area.offset, area.offset + area.size)

    def contain(self, area: Area) -> bool:
        """Return whether every page that the area can have was counted."""
        if not area.object_id or area.copied or area.object_id not in self._known:
            return False
        return self._known[area.object_id].contain(area.offset, area.offset + area.size)

    def begin_with(self, area: Area) -> bool:
        """Return whether an area was counted that begins where this one does in the object."""
        assert area.object_id
        key = area.object_id, area.offset
        known = key in self._begun
        self._begun.add(key)
        return known


class _Ranges:
    """Ranges [start, end) in any order; overlapping and adjacent ones are joined."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []

    def add(self, start: int, end: int) -> None:
        first, last = bisect_left(self._ends, start), bisect_right(self._starts, end)
        if first < last:
            start, end = min(start, self._starts[first]), max(end, self._ends[last - 1])
        self._starts[first:last], self._ends[first:last] = [start], [end]

    def contain(self, start: int, end: int) -> bool:
        index = bisect_right(self._starts, start) - 1
        return index >= 0 and end <= self._ends[index]


class _OffsetSet:
    """Pages of objects that were seen, by their offset there."""

    def __init__(self) -> None:
        self._seen: dict[ObjectId, dict[tuple[int, int], Extents]] = {}
        """By object, then by mapping (process, address): offsets in the object."""

    def fresh(self, pid: int, area: Area, runs: Iterator[PageRun]) -> Iterator[PageRun]:
        """Yield those parts of an area's runs, which must ascend, that no other mapping had."""
        assert area.object_id
        seen = self._seen.setdefault(area.object_id, {})
        mine = seen.setdefault((pid, area.start), Extents())
        others = [each for each in seen.values() if each is not mine and each]
        shift = area.offset - area.start
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
