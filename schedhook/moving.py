"""The toolkit that a strategy works with: whole-process calls and page-wise sweeps, with retry.

A strategy gets a `Move`, calls its methods in the order it likes, and returns. What became of each
page is recorded here, so that no strategy can forget a failure.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schedhook.backend import Backend, Failure, Limits, Target
from schedhook.errors import BackendError, ProcessGoneError
from schedhook.extents import Extents
from schedhook.host.topology import Topology
from schedhook.model import Area, NodeMap, Reason
from schedhook.nodemap import as_kernel_calls
from schedhook.pacing import Throttle, bind_thread
from schedhook.placing import AskedOnce, PageChoice, Pages, Placed, Wish, decide
from schedhook.retry import RetryPolicy, is_transient, retry
from schedhook.selection import ProcessSelection, Selected, Selection, find_aliases, select
from schedhook.sets import CpuSet, NodeSet

if TYPE_CHECKING:
    from schedhook.profiling.guidance import Guidance

UNIT_BYTES = 32 << 20
"""Resident memory that one unit of work is about: small enough to spread over threads."""
MOST_HOLES = 16 << 30
"""Address space without pages that is looked at page by page, in bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveOptions:
    """How to move."""

    threads: int = 1
    cpus: CpuSet = field(default_factory=CpuSet)
    """Processors that the threads are bound to; empty: the caller's."""
    bandwidth: float = 0.0
    """Bytes a second, 0: no bound."""
    limits: Limits = field(default_factory=Limits)
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    reserve: int = 0
    """Bytes that stay free on each destination; ENOMEM is worth a retry above that only."""
    sweep_leftovers: bool = True
    """Whether what a whole-process call left behind is moved page by page."""


@dataclass(slots=True)
class MovingProcess:
    """One process on the move. A strategy may read it; `Move` writes it."""

    target: Target
    selection: ProcessSelection
    """What was found when last looked."""
    moved: dict[tuple[int, int], int] = field(default_factory=dict)
    left: dict[str, int] = field(default_factory=dict)
    """Bytes that stayed when last tried, by reason."""
    gone: bool = False
    placed: Placed | None = None
    """What a strategy that decides page by page has decided; None with any other."""

    @property
    def pid(self) -> int:
        return self.target.pid


@dataclass(frozen=True, slots=True)
class _Unit:
    """Some pages to be swept with one call into the backend."""

    process: MovingProcess
    area: Area
    shared: bool
    start: int
    end: int
    destinations: Mapping[int, int]
    only: Extents | None = None


@dataclass(frozen=True, slots=True)
class _Failed:
    unit: _Unit
    failure: Failure


class Move:
    """One relocation as its strategy sees it."""

    def __init__(
        self,
        *,
        backend: Backend,
        node_map: NodeMap,
        processes: Iterable[MovingProcess],
        selection: Selection,
        options: MoveOptions,
        sources: NodeSet | None = None,
        guidance: Guidance | None = None,
        members: Callable[[], Iterable[int]] = tuple,
        cgroup: str | None = None,
        settings: Mapping[str, Any] | None = None,
        root: Path = Path("/"),
    ) -> None:
        self.node_map = node_map
        self.sources = node_map.sources if sources is None else sources
        """The nodes whose pages this is about."""
        self.guidance = guidance
        """A profile of the processes' accesses, where the request has one."""
        self.processes = list(processes)
        self.options = options
        self.members = members
        """Tells who belongs to the request by now: job and cgroup come and go."""
        self.cgroup = cgroup
        """The cgroup that was asked for, None where processes or a job were."""
        self.settings = settings or {}
        """[plugins.options.NAME] of the configuration, for the strategy of that name."""
        self.root = root
        """Where the host's files lie."""
        self.attempts = 0
        """Sweeps over the pages that failed most often, the first one included."""
        self.notes: list[str] = []
        self._backend = backend
        self._selection = selection
        self._progress: Callable[[int, int], None] | None = None
        self._moved = self._planned = 0
        self._seen: set[int] = set()
        self._throttle = Throttle(options.bandwidth)
        self._lock = threading.Lock()

    def report_progress(self, progress: Callable[[int, int], None], planned: int) -> None:
        """Call `progress` with (bytes moved so far, `planned`) as pages move."""
        self._progress, self._planned = progress, planned

    # -- what a strategy calls -------------------------------------------------------------------

    def migrate(self) -> None:
        """Move every process whole, by migrate_pages(2), in as many calls as the map needs.

        A map that lets pages arrive where others have yet to leave cannot be checked afterwards,
        or not even be said to the kernel; such a map is carried out page by page, and noted.
        """
        calls = as_kernel_calls(self.node_map.moves)
        if calls is None or self.node_map.overlaps:
            self.notes.append(
                "old and new nodes overlap, which migrate_pages(2) cannot move verifiably:"
                " moved page by page"
            )
            self.sweep()
            return
        self.attempts = max(self.attempts, 1)
        self.look()
        self._migrate_all(self.processes, calls)
        if self.options.sweep_leftovers:
            self.sweep()

    def sweep(self, processes: Sequence[MovingProcess] | None = None) -> None:
        """Move the selected pages of all processes (or these) one by one, by move_pages(2).

        Pages that failed for a reason that may pass are tried again, only they, with growing
        waits; what stayed in the end is counted in each process's `left`.
        """
        processes = list(self.processes if processes is None else processes)
        self.look()
        self._migrate_sparse(processes)
        self._sweep(self._units(processes), processes)

    def place(self, choose: PageChoice) -> None:
        """Ask `choose` about every selected page on the source nodes and note in each process's
        `placed` what shall go where. Nothing moves before `carry_out`.

        Memory that several of the processes share is asked about once.
        """
        self.look()
        usable = self._backend.topology().memory_nodes & self._backend.allowed_nodes()
        aliases = find_aliases({each.pid: each.selection for each in self.processes})
        once = AskedOnce()
        for process in self.processes:
            process.placed = Placed()
            try:
                allowed = usable & process.target.allowed_nodes()
                for item in process.selection.selected:
                    others = aliases(process.pid, item.area)
                    self._place(process, process.placed, item, allowed, others, once, choose)
            except ProcessGoneError:
                process.gone = True

    def carry_out(self) -> None:
        """Move what `place` has noted, like a sweep."""
        units = (
            _Unit(
                process,
                wish.area,
                wish.shared,
                wish.start,
                wish.end,
                {wish.old: wish.new},
                wish.pages,
            )
            for process in self.processes
            if process.placed
            for wish in process.placed.wishes
        )
        self._sweep(units, self.processes)

    def astray(self, process: MovingProcess) -> int:
        """Bytes, of what `place` has noted, that are not where they shall be; read anew."""
        total = 0
        for wish in process.placed.wishes if process.placed else ():
            try:
                runs = process.target.locate(wish.area, wish.start, wish.end)
            except ProcessGoneError:
                process.gone = True
                return 0
            total += sum(
                wish.pages.overlap(run.start, run.end) for run in runs if run.node != wish.new
            )
        return total

    def _sweep(self, units: Iterable[_Unit], processes: Sequence[MovingProcess]) -> None:
        pending = units
        settled: list[_Failed] = []
        waiting: list[_Failed] = []
        attempts = 0

        def attempt() -> bool:
            nonlocal pending, waiting, attempts
            attempts += 1
            failed, waiting = self._run(pending), []
            if not failed:
                return False
            may_pass = self._transience()
            waiting = [item for item in failed if may_pass(item)]
            settled.extend(item for item in failed if not may_pass(item))
            pending = [_again(item) for item in waiting]
            return bool(waiting)

        if attempt():
            retry(self.options.retry, attempt)
        self.attempts = max(self.attempts, attempts)
        for process in processes:
            process.left = {}
        for item in settled + waiting:
            left = item.unit.process.left
            reason = Reason.of_errno(item.failure.errno)
            left[reason] = left.get(reason, 0) + item.failure.size

    def observe(self, act: Callable[[], None]) -> int:
        """Let `act` have memory moved by other means, and record what left the old nodes meanwhile.

        Returns these bytes, less than 0 where moved memory came back. What stayed is `unexplained`
        until it is swept. Not for a map whose old and new nodes overlap.
        """
        self.attempts = max(self.attempts, 1)
        self._seen.clear()
        self.look()
        before = {each.pid: each.selection.on(self.node_map.sources) for each in self.processes}
        try:
            act()
        finally:
            self._seen.clear()
            self.look()
            total = sum(self._observed(each, before[each.pid]) for each in self.processes)
        return total

    def topology(self) -> Topology:
        """The host's nodes and their free memory, read anew."""
        return self._backend.topology()

    @property
    def takes_all(self) -> bool:
        """Whether no kind of memory is left out on request."""
        return self._selection.takes_all

    def look(self) -> None:
        """Read where the memory of all processes lies, unless that is still known.

        All are read together, since what one may move depends on who else maps it.
        """
        if self._seen == {process.pid for process in self.processes}:
            return
        areas: dict[int, Sequence[Area]] = {}
        for process in self.processes:
            try:
                areas[process.pid] = () if process.gone else process.target.areas()
            except ProcessGoneError:
                process.gone = True
                areas[process.pid] = ()
        found = select(areas, self.sources, self._selection)
        for process in self.processes:
            process.selection = found[process.pid]
        self._seen = set(found)

    # -- how it is done --------------------------------------------------------------------------

    def _place(
        self,
        process: MovingProcess,
        placed: Placed,
        item: Selected,
        allowed: NodeSet,
        aliases: Sequence[tuple[int, int]],
        once: AskedOnce,
        choose: PageChoice,
    ) -> None:
        for start, end in spread(item.area):
            wanted: dict[tuple[int, int], Extents] = {}
            runs = process.target.locate(item.area, start, end)
            on_sources = (run for run in runs if run.node in self.sources)
            for run in once.fresh(process.pid, item.area, on_sources):
                pages = Pages(
                    pid=process.pid,
                    kind=item.area.kind,
                    node=run.node,
                    page_size=run.page_size,
                    addresses=range(run.start, run.end, run.page_size),
                    allowed=allowed,
                    aliases=aliases,
                )
                placed.kept += run.end - run.start
                for first, last, new in decide(pages, choose):
                    wanted.setdefault((run.node, new), Extents()).add(first, last)
                    placed.kept -= last - first
            for (old, new), extents in sorted(wanted.items()):
                placed.add(
                    Wish(
                        area=item.area,
                        shared=item.shared,
                        start=start,
                        end=end,
                        old=old,
                        new=new,
                        pages=extents,
                    )
                )

    def _migrate_all(
        self, processes: Sequence[MovingProcess], calls: Sequence[tuple[NodeSet, NodeSet]]
    ) -> None:
        with self._pool() as pool:
            list(pool.map(lambda process: self._migrate(process, calls), processes))
        if len(self.processes) > 1:  # each was read while others were still on the move
            self._seen.clear()

    def _migrate(self, process: MovingProcess, calls: Sequence[tuple[NodeSet, NodeSet]]) -> None:
        if process.gone or not process.selection.on(self.node_map.sources):
            return
        if len(self.processes) > 1:  # another's call may have moved what they share
            self._look_alone(process)
        before = process.selection.on(self.node_map.sources)
        try:
            for sources, destinations in calls:
                try:
                    process.target.migrate(sources, destinations)
                except BackendError as error:
                    # Some pages have moved; which, only residency tells. The rest has a reason.
                    if error.errno != errno.ENOMEM:
                        raise
        except ProcessGoneError:
            process.gone = True
            return
        self._look_alone(process)
        after = process.selection.on(self.node_map.sources)
        for node, size in before.items():
            gone = size - after.get(node, 0)
            if gone > 0:
                self._record(process, {(node, self.node_map.pairs[node]): gone})
        process.left = {Reason.UNEXPLAINED: sum(after.values())} if any(after.values()) else {}

    def _observed(self, process: MovingProcess, before: Mapping[int, int]) -> int:
        if process.gone:
            return 0
        after = process.selection.on(self.node_map.sources)
        change = {}
        for node in before.keys() | after.keys():
            pair = (node, self.node_map.pairs[node])
            # What the job has put there since is not what came back.
            most_back = -process.moved.get(pair, 0)
            change[pair] = max(before.get(node, 0) - after.get(node, 0), most_back)
        self._record(process, change)
        stayed = sum(min(size, after.get(node, 0)) for node, size in before.items())
        process.left = {Reason.UNEXPLAINED: stayed} if stayed else {}
        return sum(change.values())

    def _migrate_sparse(self, processes: Sequence[MovingProcess]) -> None:
        """Where holes cost as much as pages to look at, let the kernel skip those of the sparsest
        processes, by migrate_pages(2); the sweep then does what that left."""
        options = self.options
        calls = as_kernel_calls(self.node_map.moves)
        if calls is None or self.node_map.overlaps:
            return
        if options.bandwidth or options.limits.call_seconds:  # one call could not keep to these
            return
        if not self._selection.takes_all:  # nor to a choice among the process's pages
            return
        sparse = [each for each in processes if _holes(each) > MOST_HOLES]
        if not sparse:
            return
        self.notes.append(
            "this kernel does not tell where the holes of an address space are: process "
            + ", ".join(str(process.pid) for process in sparse)
            + " moved whole at first, by migrate_pages(2)"
        )
        self._migrate_all(sparse, calls)
        self.look()

    def _look_alone(self, process: MovingProcess) -> None:
        """Read one process again, keeping what was decided about shared memory of the job."""
        if len(self.processes) == 1:
            self._seen.clear()
            self.look()
            return
        try:
            by_start = {area.start: area for area in process.target.areas()}
        except ProcessGoneError:
            process.gone = True
            by_start = {}
        process.selection = ProcessSelection(
            residency=process.selection.residency,
            kept=process.selection.kept,
            selected=tuple(
                Selected(area=by_start[item.area.start], shared=item.shared, counted=item.counted)
                for item in process.selection.selected
                if item.area.start in by_start
            ),
        )

    def _units(self, processes: Sequence[MovingProcess]) -> Iterable[_Unit]:
        moves = self.node_map.moves
        if not self.node_map.overlaps:
            for process in processes:
                for item in process.selection.selected:
                    if item.area.residency.keys().isdisjoint(moves):
                        continue  # its holes and its pages elsewhere cost time to look at
                    for start, end in spread(item.area):
                        yield _Unit(process, item.area, item.shared, start, end, moves)
            return
        # A page that has arrived must not be taken for one that has yet to leave. Each run of
        # pages is swept for the node where it was found at first; what several processes map is
        # found before anything moves, the rest piece by piece, so that memory use stays bounded.
        common = list[_Unit]()
        own = list[tuple[MovingProcess, Selected]]()
        for process in processes:
            for item in process.selection.selected:
                if len(processes) > 1 and (item.area.is_shared or item.area.most_mappers > 1):
                    for start, end in spread(item.area):
                        common += self._located(process, item, start, end)
                else:
                    own.append((process, item))
        yield from common
        for process, item in own:
            for start, end in spread(item.area):
                yield from self._located(process, item, start, end)

    def _located(
        self, process: MovingProcess, item: Selected, start: int, end: int
    ) -> Iterable[_Unit]:
        moves = self.node_map.moves
        try:
            runs = process.target.locate(item.area, start, end)
        except ProcessGoneError:
            process.gone = True
            return
        for run in runs:
            if run.node in moves:
                only = {run.node: moves[run.node]}
                yield _Unit(process, item.area, item.shared, run.start, run.end, only)

    def _run(self, units: Iterable[_Unit]) -> list[_Failed]:
        """Sweep the units, each by the next thread that is free; returns what stayed."""
        source, turn = iter(units), threading.Lock()
        self._seen.clear()

        def work() -> list[_Failed]:
            failed: list[_Failed] = []
            while True:
                with turn:
                    unit = next(source, None)
                if unit is None:
                    return failed
                failed += self._sweep_unit(unit)

        with self._pool() as pool:
            workers = [pool.submit(work) for _ in range(self.options.threads)]
        return [item for worker in workers for item in worker.result()]

    def _sweep_unit(self, unit: _Unit) -> list[_Failed]:
        process = unit.process
        if process.gone:
            return []
        failed: list[_Failed] = []
        for start, end in self._throttle.pieces(unit.start, unit.end, unit.area.page_size):
            try:
                done = process.target.sweep(
                    unit.area,
                    start,
                    end,
                    unit.destinations,
                    shared=unit.shared,
                    limits=self.options.limits,
                    only=unit.only,
                )
            except ProcessGoneError:
                process.gone = True
                return failed
            self._record(process, done.moved)
            self._throttle.spend(sum(done.moved.values()))
            failed += [_Failed(unit, failure) for failure in done.failures]
            if done.gone:
                process.gone = True
                return failed
        return failed

    def _record(self, process: MovingProcess, moved: Mapping[tuple[int, int], int]) -> None:
        with self._lock:
            for pair, size in moved.items():
                process.moved[pair] = process.moved.get(pair, 0) + size
            self._moved += sum(moved.values())
            if self._progress:
                self._progress(self._moved, self._planned)

    def _transience(self) -> Callable[[_Failed], bool]:
        """A test for failures that may pass, by what memory is free now."""
        nodes = self._backend.topology().nodes

        def may_pass(item: _Failed) -> bool:
            wanted = self.options.reserve + item.failure.size
            has_room = all(
                node in nodes and nodes[node].memory_free >= wanted
                for node in item.unit.destinations.values()
            )
            return not item.unit.process.gone and is_transient(
                item.failure.errno, has_room=has_room
            )

        return may_pass

    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(
            self.options.threads,
            thread_name_prefix="schedhook-move",
            initializer=bind_thread,
            initargs=(self.options.cpus,),
        )


def _holes(process: MovingProcess) -> int:
    """Bytes of address space without pages that a sweep would look at."""
    if process.gone or process.target.skips_holes:
        return 0
    return sum(item.area.size - item.area.resident for item in process.selection.selected)


def spread(area: Area) -> Iterable[tuple[int, int]]:
    """Cut an area into pieces of about UNIT_BYTES of resident memory each."""
    pieces = max(1, area.resident // UNIT_BYTES)
    step = area.size // pieces
    # Whole huge pages, of whatever size, stay in one piece.
    align = max(area.page_size, 2 << 20)
    step = max(align, step // align * align)
    start = area.start
    while start < area.end:
        end = min(area.end, start // align * align + step)
        if area.end - end < align:
            end = area.end
        yield start, end
        start = end


def _again(item: _Failed) -> _Unit:
    return replace(item.unit, start=item.failure.start, end=item.failure.end)
