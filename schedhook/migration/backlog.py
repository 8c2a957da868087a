"""The pages of page plans that have yet to arrive, for a move that is carried out in chunks."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from schedhook.migration.page_plan import Transfer
from schedhook.migration.processes import MovingMemory, MovingProcess
from schedhook.migration.runs import last_cut
from schedhook.values.errors import ProcessGoneError
from schedhook.values.extents import Extents
from schedhook.values.model import MemoryKind
from schedhook.values.sizes import add_sizes

Key = tuple[int, int, bool]
"""The node on which pages are, the one on which they belong, and whether they wait on the first."""


@dataclass(frozen=True, slots=True)
class Lot:
    """Pages of one process that go the same way."""

    part: MovingMemory
    transfer: Transfer
    size: int

    @classmethod
    def of(cls, part: MovingMemory, transfer: Transfer) -> Lot:
        """Return the lot of a transfer's pages."""
        return cls(part, transfer, transfer.pages.size)

    def only(self, pages: Extents) -> Lot:
        """Return the lot of these of its pages; there is one at least."""
        *_, (_, end) = pages
        start = next(iter(pages))[0]
        transfer = replace(self.transfer, start=start, end=end, pages=pages)
        return Lot(self.part, transfer, pages.size)

    def on(self, node: int) -> Lot | None:
        """Return the lot of those of its pages that are on the node now; None if none is."""
        its, pages = self.transfer, Extents()
        try:
            for run in self.part.target.locate(its.area, its.start, its.end):
                if run.node == node:
                    for first, last in its.pages.within(run.start, run.end):
                        pages.add(first, last)
        except ProcessGoneError:
            self.part.gone = True
            return None
        if not pages:
            return None
        found = self.only(pages)
        return replace(found, transfer=replace(found.transfer, old=node))

    def cut(self, size: int, *, at_least_one: bool) -> tuple[Lot | None, Lot]:
        """Return the lot of its first `size` bytes, fewer than it has, and that of the others.

        No page that moves as one is cut; `at_least_one`: rather take more than nothing.
        """
        area, target = self.transfer.area, self.part.target
        first, rest = Extents(), Extents()
        for start, end in self.transfer.pages:
            at = end if end - start <= size else last_cut(target, area, start, start + size)
            if at == start and at_least_one and not first:
                at = min(end, target.boundary(area, start + 1))
            if start < at:
                first.add(start, at)
            if at < end:
                rest.add(at, end)
            size = max(0, size - (at - start)) if at == end else 0
        if not rest:
            return None if not first else self, self
        return self.only(first) if first else None, self.only(rest)

    def spare(self, size: int) -> tuple[Lot | None, Lot | None]:
        """Return the lot of at most `size` bytes of its pages, at any ends of runs, and the rest.

        No page that moves as one is cut.
        """
        area, target = self.transfer.area, self.part.target
        spared, rest = Extents(), Extents()
        for start, end in self.transfer.pages:
            first = start
            last = end if end - start <= size else last_cut(target, area, start, start + size)
            if last == start and size:
                first, last = min(end, target.boundary(area, end - size)), end
            if start < first:
                rest.add(start, first)
            if first < last:
                spared.add(first, last)
            if last < end:
                rest.add(last, end)
            size -= last - first
        return self.only(spared) if spared else None, self.only(rest) if rest else None


class Backlog:
    """The lots that have yet to move, by where they are and where they belong."""

    def __init__(self, processes: Iterable[MovingProcess]) -> None:
        self.pooled: list[Lot] = []
        """Those of pools of huge pages, which take no room; `take` does not return them."""
        self._queues: dict[Key, deque[Lot]] = {}
        self._sizes: dict[Key, dict[int, int]] = {}
        """The bytes in each queue, by the identity of the process."""
        self._parts: dict[int, MovingMemory] = {}
        for process in processes:
            for transfer in process.page_plan.transfers if process.page_plan else ():
                lot = Lot.of(process, transfer)
                if transfer.area.kind is MemoryKind.HUGE:
                    self.pooled.append(lot)
                else:
                    self.put((transfer.old, transfer.new, False), [lot])

    def put(self, key: Key, lots: Iterable[Lot]) -> None:
        """Add lots to those that have yet to move."""
        queue, sizes = self._queues.setdefault(key, deque()), self._sizes.setdefault(key, {})
        for lot in lots:
            queue.append(lot)
            self._parts[id(lot.part)] = lot.part
            add_sizes(sizes, {id(lot.part): lot.size})

    def sizes(self) -> Mapping[Key, int]:
        """Return the bytes that have yet to move, of processes that exist."""
        found = {
            key: sum(size for number, size in sizes.items() if not self._parts[number].gone)
            for key, sizes in self._sizes.items()
        }
        return {key: size for key, size in found.items() if size}

    def pending(self) -> Iterator[tuple[MovingMemory, int]]:
        """Yield (process, bytes) of what has yet to move, of processes that exist."""
        for sizes in self._sizes.values():
            for number, size in sizes.items():
                if size and not self._parts[number].gone:
                    yield self._parts[number], size

    def take(self, key: Key, size: int) -> list[Lot]:
        """Remove lots of about `size` bytes, more only if a page is larger, and return them."""
        return self._counted_out(key, list(self._taken(self._queues[key], size)))

    def leave_out(self, key: Key, size: int) -> list[Lot]:
        """Remove lots of `size` bytes in all, and return them; none if that would cut a page."""
        found, rest = self._spare(key, size)
        if not found:
            return []
        self._queues[key] = rest
        return self._counted_out(key, found)

    def can_leave_out(self, key: Key, size: int) -> bool:
        """Return whether `leave_out` would leave so many bytes out."""
        found, _ = self._spare(key, size)
        return bool(found)

    def _counted_out(self, key: Key, lots: list[Lot]) -> list[Lot]:
        """Return lots that are no longer in the queue, once their sizes are not counted either."""
        for lot in lots:
            add_sizes(self._sizes[key], {id(lot.part): -lot.size})
        return lots

    def _spare(self, key: Key, size: int) -> tuple[list[Lot], deque[Lot]]:
        """Return lots of `size` bytes in all, none if that would cut a page, and the others."""
        found, rest = list[Lot](), deque[Lot]()
        for lot in self._queues[key]:
            out, others = lot.spare(size) if size and not lot.part.gone else (None, lot)
            if out is not None:
                found.append(out)
                size -= out.size
            if others is not None:
                rest.append(others)
        return (found, rest) if not size else ([], self._queues[key])

    def _taken(self, queue: deque[Lot], size: int) -> Iterator[Lot]:
        is_first = True
        while queue and size > 0:
            lot = queue.popleft()
            if lot.part.gone:
                continue
            if lot.size > size:
                found, rest = lot.cut(size, at_least_one=is_first)
                if found is not lot:
                    queue.appendleft(rest)
                size = 0  # what fits between pages is too little for another lot
                if found is None:
                    return
                lot = found
            size -= lot.size
            is_first = False
            yield lot
