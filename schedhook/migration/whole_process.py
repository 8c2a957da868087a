"""Move processes whole, by migrate_pages(2)."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Mapping, Sequence

from schedhook.migration.headroom import Headroom
from schedhook.migration.options import MoveOptions
from schedhook.migration.processes import MovingProcess
from schedhook.migration.sweeper import Sweeper
from schedhook.migration.threads import for_each
from schedhook.migration.unreachable import unreachable_bytes
from schedhook.migration.view import View
from schedhook.values.errors import BackendError, NoPermissionError, ProcessGoneError
from schedhook.values.model import NodeMap
from schedhook.values.nodemap import as_kernel_calls
from schedhook.values.reasons import Reason
from schedhook.values.sets import NodeSet
from schedhook.values.sizes import add_sizes

MOST_HOLES = 16 << 30
"""Bytes of address space without pages up to which a process is looked at page by page."""
_AT_ONCE = 4 << 20
"""Bytes that calls move in a few milliseconds: so much they may do of a throttled move."""
_AT_ONCE_SECONDS = 0.1
"""And for no more than the limit allows in this time."""

Calls = Sequence[tuple[NodeSet, NodeSet]]
"""(sources, destinations) of migrate_pages(2) calls, one after the other."""


class WholeProcessMover:
    """Moves processes whole, and records in them what residency shows to have moved."""

    def __init__(
        self,
        view: View,
        sweeper: Sweeper,
        headroom: Headroom,
        node_map: NodeMap,
        options: MoveOptions,
        notes: list[str],
    ) -> None:
        self._view = view
        self._sweeper = sweeper
        self._headroom = headroom
        self._node_map = node_map
        self._options = options
        self._notes = notes
        self._failure_noted = False

    def migrate(self, processes: Sequence[MovingProcess], calls: Calls) -> None:
        """Move each of the processes by these calls, several processes at a time.

        Raise BackendError or NoPermissionError if the kernel refuses a call and no sweep follows
        that would move the pages and tell why others stay.
        """
        errors = for_each(
            lambda process: self._migrate_one(process, calls), processes, self._options
        )
        self._note_failure(error for error in errors if error is not None)
        if len(self._view.processes) > 1:  # each was read while others were still on the move
            self._view.expire()

    def migrate_sparse(self, processes: Sequence[MovingProcess]) -> None:
        """Move the sparsest processes whole ahead of a sweep that would visit every hole.

        Does nothing for a backend that skips holes. The sweep then moves what this leaves.
        """
        calls = self._verifiable_calls()
        sparse = [each for each in processes if _holes(each) > MOST_HOLES] if calls else []
        if self._options.is_throttled:
            sparse = self._small(sparse)
        if not sparse:
            return
        self._note(
            "this kernel does not report the holes of an address space, so migrate_pages(2) moved"
            f" process {_pids(sparse)} as a whole first"
        )
        self.migrate(sparse, calls)
        self._view.refresh()

    def migrate_unreachable(self, processes: Sequence[MovingProcess]) -> None:
        """Move by migrate_pages(2) the pages that move_pages(2) does not find.

        What stays is counted in each process's `left`.
        """
        self._view.refresh()
        some = [
            each
            for each in processes
            if self._count_unreachable(each, each.left.pop(Reason.HIDDEN, 0))
        ]
        calls = self.calls_beside_a_sweep()
        if not some or not calls:
            return
        self._note(
            f"move_pages(2) does not find all of the memory of process {_pids(some)}, so"
            " migrate_pages(2) was called for the rest"
        )
        reasons = {process.pid: process.left for process in some}
        self.migrate(some, calls)
        self._view.refresh()
        for process in some:
            process.left = reasons[process.pid]
            process.left.pop(Reason.HIDDEN)
            self._count_unreachable(process)

    def calls_beside_a_sweep(self) -> Calls:
        """Return the calls that may do what a sweep cannot do well; none if not allowed here."""
        # One call could not keep to the limits.
        return () if self._options.is_throttled else self._verifiable_calls()

    def _verifiable_calls(self) -> Calls:
        # A call cannot keep to a choice among the process's pages.
        if self._node_map.overlaps or not self._view.selection.takes_all:
            return ()
        return as_kernel_calls(self._node_map.moves) or ()

    def _small(self, processes: Iterable[MovingProcess]) -> list[MovingProcess]:
        """Return those that calls may move in spite of the limits, since they have so little.

        All that a process maps counts, also what it shares and what counts with another one.
        """
        room = min(_AT_ONCE, self._options.bandwidth * _AT_ONCE_SECONDS or _AT_ONCE)
        small = []
        for process in processes:
            has = process.selection.residency
            size = sum(has.get(node, 0) for node in self._node_map.sources)
            if size <= room:
                room -= size
                small.append(process)
        return small

    def _migrate_one(self, process: MovingProcess, calls: Calls) -> Exception | None:
        """Move one process, and return the first error that a sweep can make up for, if any."""
        sources = self._node_map.sources
        if process.gone or not process.selection.on(sources):
            return None
        before = process.selection.on(sources)
        if len(self._view.processes) > 1:  # it may have freed memory while others moved
            # What it shares counts with it, also if another process's call has moved it.
            before = process.selection.on(sources, common=True)
            self._view.reread(process)
            add_sizes(before, process.selection.on(sources, common=False))
        # A call cannot be stopped half-way, so it is made only if all of the memory has room.
        with self._headroom.taken(self._arriving(process, before)) as has_room:
            if not has_room:
                process.left = {Reason.RESERVE: sum(before.values())}
                return None
            try:
                error = self._call(process, calls)
            except ProcessGoneError:
                process.gone = True
                return None
        self._view.reread(process)
        if not process.gone:
            self._record(process, before, process.selection.on(sources))
        return error

    def _arriving(
        self, process: MovingProcess, before: Mapping[int, int]
    ) -> dict[tuple[int, int], int]:
        """Return the bytes by (old node, new node) that take room on the new node."""
        pooled = process.selection.huge_on(self._node_map.sources)
        return {
            (node, self._node_map.pairs[node]): max(0, size - pooled.get(node, 0))
            for node, size in before.items()
        }

    def _call(self, process: MovingProcess, calls: Calls) -> Exception | None:
        first: Exception | None = None
        for sources, destinations in calls:
            try:
                process.target.migrate(sources, destinations)
            except (BackendError, NoPermissionError) as error:
                # Some pages may have moved; only residency tells which. A sweep shows why the
                # others stayed, and moves them if a container denies only this call.
                if isinstance(error, BackendError) and error.errno == errno.ENOMEM:
                    continue
                if not self._options.sweep_leftovers:
                    raise
                first = first or error
        return first

    def _record(
        self, process: MovingProcess, before: Mapping[int, int], after: Mapping[int, int]
    ) -> None:
        for node, size in before.items():
            gone = size - after.get(node, 0)
            if gone > 0:
                self._sweeper.record(process, {(node, self._node_map.pairs[node]): gone})
        process.left = {Reason.UNEXPLAINED: sum(after.values())} if any(after.values()) else {}

    def _note_failure(self, errors: Iterable[Exception]) -> None:
        error = next(iter(errors), None)
        if error is not None and not self._failure_noted:  # the first one is enough
            self._failure_noted = True
            self._note(f"not moved whole, by migrate_pages(2), but page by page: {error}")

    def _note(self, sentence: str) -> None:
        """Add a sentence to the report, unless an earlier step has added it."""
        if sentence not in self._notes:
            self._notes.append(sentence)

    def _count_unreachable(self, process: MovingProcess, failed: int = 0) -> int:
        """Count in `left` the unreachable bytes, of those that no other reason accounts for.

        `failed`: the bytes that the last sweep found to be hidden, whether they still are or not.
        """
        nodes = self._node_map.sources
        rest = sum(process.selection.on(nodes).values()) - sum(process.left.values())
        size = min(rest, max(failed, unreachable_bytes(process, nodes))) if rest > 0 else 0
        if size:
            process.left[Reason.HIDDEN] = size
        return size


def _holes(process: MovingProcess) -> int:
    """Return the bytes of address space without pages that a sweep would visit."""
    if process.gone or process.target.skips_holes:
        return 0
    selected = process.selection.selected
    return sum(item.area.mapped - item.area.resident for item in selected if item.counted)


def _pids(processes: Iterable[MovingProcess]) -> str:
    return ", ".join(str(process.pid) for process in processes)
