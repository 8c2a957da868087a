"""The toolkit that a strategy works with: whole-process calls and page-wise sweeps, with retry.

A strategy gets a `Move`, calls its methods in the order it likes, and returns. What became of each
page is recorded here, so that no strategy can forget a failure.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schedhook.host.topology import Topology
from schedhook.migration.page_plan import AskedOnce, PagePlan, Transfer, decide
from schedhook.migration.selection import (
    ProcessSelection,
    Selected,
    Selection,
    find_aliases,
    select,
)
from schedhook.migration.sweeper import MoveOptions, MovingProcess, Sweeper, Unit, spread
from schedhook.migration.unreachable import unreachable_bytes
from schedhook.roles.backend import Backend, Target
from schedhook.roles.strategy import PageChoice, Pages
from schedhook.values.errors import BackendError, NoPermissionError, ProcessGoneError
from schedhook.values.extents import Extents
from schedhook.values.model import Area, NodeMap, Reason
from schedhook.values.nodemap import as_kernel_calls
from schedhook.values.sets import NodeSet

if TYPE_CHECKING:
    from schedhook.roles.guidance import Guidance

__all__ = ["Move", "MoveOptions", "MovingProcess"]

MOST_HOLES = 16 << 30
"""Address space without pages that is looked at page by page, in bytes."""
_NOT_WHOLE = "not moved whole, by migrate_pages(2)"


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
        self.notes: list[str] = []
        self._backend = backend
        self._selection = selection
        self._sweeper = Sweeper(backend, options)
        self._seen: set[int] = set()

    @property
    def attempts(self) -> int:
        """Sweeps over the pages that failed most often, the first one included."""
        return self._sweeper.attempts

    def report_progress(self, progress: Callable[[int, int], None], planned: int) -> None:
        """Call `progress` with (bytes moved so far, `planned`) as pages move."""
        self._sweeper.report_progress(progress, planned)

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
        self._sweeper.attempts = max(self._sweeper.attempts, 1)
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
        if not self.node_map.overlaps:  # else nobody could tell them from what has arrived
            self._migrate_hidden(processes)

    def plan_pages(self, choose: PageChoice) -> None:
        """Ask `choose` about every selected page on the source nodes and note in each process's
        `page_plan` what shall go where. Nothing moves before `carry_out`.

        Memory that several of the processes share is asked about once.
        """
        self.look()
        usable = self._backend.topology().memory_nodes & self._backend.allowed_nodes()
        aliases = find_aliases({each.pid: each.selection for each in self.processes})
        once = AskedOnce()
        for process in self.processes:
            process.page_plan = PagePlan(unreachable=unreachable_bytes(process, self.sources))
            try:
                allowed = usable & process.target.allowed_nodes()
                for item in process.selection.selected:
                    others = aliases(process.pid, item.area)
                    self._plan_part(process, process.page_plan, item, allowed, others, once, choose)
            except ProcessGoneError:
                process.gone = True

    def carry_out(self) -> None:
        """Move what `plan_pages` has noted, like a sweep."""
        units = (
            Unit(
                process,
                transfer.area,
                transfer.shared,
                transfer.start,
                transfer.end,
                {transfer.old: transfer.new},
                transfer.pages,
            )
            for process in self.processes
            if process.page_plan
            for transfer in process.page_plan.transfers
        )
        self._sweep(units, self.processes)

    def astray(self, process: MovingProcess) -> int:
        """Bytes, of what `plan_pages` has noted, that are not where they shall be; read anew."""
        total = 0
        for transfer in process.page_plan.transfers if process.page_plan else ():
            try:
                runs = process.target.locate(transfer.area, transfer.start, transfer.end)
            except ProcessGoneError:
                process.gone = True
                return 0
            total += sum(
                transfer.pages.overlap(run.start, run.end)
                for run in runs
                if run.node != transfer.new
            )
        return total

    def _sweep(self, units: Iterable[Unit], processes: Iterable[MovingProcess]) -> None:
        self._seen.clear()
        self._sweeper.sweep(units, processes)

    def observe(self, act: Callable[[], None]) -> int:
        """Let `act` have memory moved by other means, and record what left the old nodes meanwhile.

        Returns these bytes, less than 0 where moved memory came back. What stayed is `unexplained`
        until it is swept. Not for a map whose old and new nodes overlap.
        """
        self._sweeper.attempts = max(self._sweeper.attempts, 1)
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

    def renew(self, process: MovingProcess, target: Target) -> None:
        """Go on with a process that is gone through `target`, its new address space."""
        process.target, process.gone, process.left = target, False, {}
        self._seen.clear()

    def look(self) -> None:
        """Read where the memory of all processes lies, unless that is still known.

        All are read together, since what one may move depends on who else maps it.
        """
        if self._seen == set(map(id, self.processes)):
            return
        areas: dict[int, Sequence[Area]] = {}
        held = {process.pid for process in self.processes if not process.gone}
        for process in self.processes:
            owner = process.target.memory_owner_pid()
            process.memory_owner_pid = owner if owner in held else None
            passed_over = process.gone or process.memory_owner_pid is not None
            try:
                areas[process.pid] = () if passed_over else process.target.areas()
            except ProcessGoneError:
                process.gone = True
                areas[process.pid] = ()
        found = select(areas, self.sources, self._selection)
        for process in self.processes:
            process.selection = found[process.pid]
        self._seen = set(map(id, self.processes))

    # -- how it is done --------------------------------------------------------------------------

    def _plan_part(
        self,
        process: MovingProcess,
        plan: PagePlan,
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
                plan.kept += run.end - run.start
                for first, last, new in decide(pages, choose):
                    wanted.setdefault((run.node, new), Extents()).add(first, last)
                    plan.kept -= last - first
            for (old, new), extents in sorted(wanted.items()):
                plan.add(
                    Transfer(
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
        with self._sweeper.threads() as pool:
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
                except (BackendError, NoPermissionError) as error:
                    # Some pages may have moved; which, only residency tells. Why others stayed,
                    # or that a container allows only the other call, shows page by page.
                    if not (isinstance(error, BackendError) and error.errno == errno.ENOMEM):
                        if not self.options.sweep_leftovers:
                            raise
                        self._note_not_whole(error)
        except ProcessGoneError:
            process.gone = True
            return
        self._look_alone(process)
        if process.gone:
            return
        after = process.selection.on(self.node_map.sources)
        for node, size in before.items():
            gone = size - after.get(node, 0)
            if gone > 0:
                self._sweeper.record(process, {(node, self.node_map.pairs[node]): gone})
        process.left = {Reason.UNEXPLAINED: sum(after.values())} if any(after.values()) else {}

    def _note_not_whole(self, error: Exception) -> None:
        if not any(each.startswith(_NOT_WHOLE) for each in self.notes):  # the first is enough
            self.notes.append(f"{_NOT_WHOLE}, but page by page: {error}")

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
        self._sweeper.record(process, change)
        stayed = sum(min(size, after.get(node, 0)) for node, size in before.items())
        process.left = {Reason.UNEXPLAINED: stayed} if stayed else {}
        return sum(change.values())

    def _migrate_sparse(self, processes: Sequence[MovingProcess]) -> None:
        """Where holes cost as much as pages to look at, let the kernel skip those of the sparsest
        processes, by migrate_pages(2); the sweep then does what that left."""
        calls = self._calls_for_a_part()
        if not calls:
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

    def _calls_for_a_part(self) -> Sequence[tuple[NodeSet, NodeSet]]:
        """The calls of migrate_pages(2) that a sweep may use for what it is no good at."""
        options = self.options
        if self.node_map.overlaps:
            return ()
        if options.bandwidth or options.limits.call_seconds:  # one call could not keep to these
            return ()
        if not self._selection.takes_all:  # nor to a choice among the process's pages
            return ()
        return as_kernel_calls(self.node_map.moves) or ()

    def _migrate_hidden(self, processes: Sequence[MovingProcess]) -> None:
        """Move by migrate_pages(2) what a sweep was not shown."""
        self.look()
        some = [each for each in processes if self._count_hidden(each)]
        calls = self._calls_for_a_part()
        if not some or not calls:
            return
        self.notes.append(
            "move_pages(2) does not find all of the memory of process "
            + ", ".join(str(process.pid) for process in some)
            + ", so that migrate_pages(2) was called for the rest"
        )
        reasons = {process.pid: process.left for process in some}
        self._migrate_all(some, calls)
        self.look()
        for process in some:
            process.left = reasons[process.pid]
            self._count_hidden(process)

    def _count_hidden(self, process: MovingProcess) -> int:
        """Note in `left` how many bytes are hidden, of those that nothing else accounts for."""
        process.left.pop(Reason.HIDDEN, None)
        found = sum(process.selection.on(self.node_map.sources).values())
        rest = found - sum(process.left.values())
        hidden = min(rest, unreachable_bytes(process, self.sources)) if rest > 0 else 0
        if hidden:
            process.left[Reason.HIDDEN] = hidden
        return hidden

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
            areas=tuple(by_start.values()),
        )

    def _units(self, processes: Sequence[MovingProcess]) -> Iterable[Unit]:
        moves = self.node_map.moves
        if not self.node_map.overlaps:
            for process in processes:
                for item in process.selection.selected:
                    if item.area.residency.keys().isdisjoint(moves):
                        continue  # its holes and its pages elsewhere cost time to look at
                    for start, end in spread(item.area):
                        yield Unit(process, item.area, item.shared, start, end, moves)
            return
        # A page that has arrived must not be taken for one that has yet to leave. Each run of
        # pages is swept for the node where it was found at first; what several processes map is
        # found before anything moves, the rest piece by piece, so that memory use stays bounded.
        common = list[Unit]()
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
    ) -> Iterable[Unit]:
        moves = self.node_map.moves
        try:
            runs = process.target.locate(item.area, start, end)
        except ProcessGoneError:
            process.gone = True
            return
        for run in runs:
            if run.node in moves:
                only = {run.node: moves[run.node]}
                yield Unit(process, item.area, item.shared, run.start, run.end, only)


def _holes(process: MovingProcess) -> int:
    """Bytes of address space without pages that a sweep would look at."""
    if process.gone or process.target.skips_holes:
        return 0
    return sum(item.area.size - item.area.resident for item in process.selection.selected)
