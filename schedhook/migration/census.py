"""Count each physical page once, however often processes map it.

Only areas that numa_maps says to hold pages with several mappings are looked at page by page, and
only if another area of the job can be one of these. The backend tells pages apart by their frames.
If it cannot, a page of an object is known by its offset there, and pages that processes share since
fork(2) are counted in each of them: the numbers are upper bounds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

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
    windows = _Overlaps()
    for pid, areas in areas_by_pid.items():
        for area in areas:
            if _has_common_pages(area):
                windows.add(pid, area)
    return windows.found()


def mapped_twice(areas: Sequence[Area]) -> set[int]:
    """Return the starts of the areas of one process that map the same part of an object."""
    windows = _Overlaps()
    for area in areas:
        if area.object_id and _has_common_pages(area):
            windows.add(0, area)
    return {start for _, start in windows.found(objects_only=True)}


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


class _Overlaps:
    """Finds areas that map the same part of an object, or that have shared pages without one."""

    def __init__(self) -> None:
        self._by_object: dict[ObjectId, list[tuple[int, int, tuple[int, int]]]] = {}
        self._own: set[tuple[int, int]] = set()
        self._copies: set[tuple[int, int]] = set()

    def add(self, pid: int, area: Area) -> None:
        key = pid, area.start
        if area.object_id:
            window = area.offset, area.offset + area.size, key
            self._by_object.setdefault(area.object_id, []).append(window)
        # Since fork(2), or merged by KSM; the other area can be anywhere.
        if not area.object_id:
            self._own.add(key)
        elif area.copied:  # else it may be pages of the file that others map
            self._copies.add(key)

    def found(self, *, objects_only: bool = False) -> set[tuple[int, int]]:
        found = set[tuple[int, int]]()
        if not objects_only:
            found |= self._own
            found |= self._copies if len(self._own | self._copies) > 1 else set()
        for windows in self._by_object.values():
            furthest, last = -1, None
            for start, end, key in sorted(windows):
                if start < furthest:
                    found.update(each for each in (key, last) if each)
                if end > furthest:
                    furthest, last = end, key
        return found


class _Windows:
    """Parts of objects of which every page was counted."""

    def __init__(self) -> None:
        self._known: dict[ObjectId, list[tuple[int, int]]] = {}
        self._begun: set[tuple[ObjectId, int]] = set()

    def add(self, area: Area) -> None:
        """Add the area's part of its object if all of its pages are present and the object's."""
        if area.object_id and not area.copied and area.resident == area.size:
            window = area.offset, area.offset + area.size
            self._known.setdefault(area.object_id, []).append(window)

    def contain(self, area: Area) -> bool:
        """Return whether every page that the area can have was counted."""
        if not area.object_id or area.copied:
            return False
        start, end = area.offset, area.offset + area.size
        return any(a <= start and end <= b for a, b in self._known.get(area.object_id, ()))

    def begin_with(self, area: Area) -> bool:
        """Return whether an area was counted that begins where this one does in the object."""
        assert area.object_id
        key = area.object_id, area.offset
        known = key in self._begun
        self._begun.add(key)
        return known


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
