"""The toolkit that a strategy works with: whole-process calls and page-wise sweeps, with retry.

A strategy gets a `Move`, calls its methods in any order, and returns. The methods record what
became of each page, so that no strategy can lose a failure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schedhook.host.topology import Topology
from schedhook.migration import observation, page_choice
from schedhook.migration.backlog import Lot
from schedhook.migration.headroom import Headroom
from schedhook.migration.objects import Unread
from schedhook.migration.options import MoveOptions
from schedhook.migration.processes import MovingMemory, MovingProcess
from schedhook.migration.selection import Selection
from schedhook.migration.snapshot import Snapshot
from schedhook.migration.sweeper import Sweeper
from schedhook.migration.units import (
    Heat,
    gather,
    heated_units,
    map_units,
    planned_units,
    transfer_unit,
)
from schedhook.migration.view import View
from schedhook.migration.whole_process import WholeProcessMover
from schedhook.roles.backend import Backend, Target
from schedhook.roles.request import Progress
from schedhook.roles.strategy import PageChoice
from schedhook.values.model import NodeMap
from schedhook.values.nodemap import as_kernel_calls, in_order
from schedhook.values.reasons import Reason
from schedhook.values.sets import NodeSet
from schedhook.values.sizes import add_sizes

if TYPE_CHECKING:
    from schedhook.roles.guidance import Guidance

__all__ = ["Move", "MoveOptions", "MovingProcess"]


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
        destinations: NodeSet | None = None,
        headroom: Headroom | None = None,
        guidance: Guidance | None = None,
        member_pids: Callable[[], Iterable[int]] = tuple,
        cgroup: str | None = None,
        plugin_options: Mapping[str, Any] | None = None,
        root: Path = Path("/"),
        notes: list[str] | None = None,
    ) -> None:
        self.node_map = node_map
        self.guidance = guidance
        """A profile of the processes' accesses if the request has one."""
        self.options = options
        self.member_pids = member_pids
        """Returns the pids that belong to the request now: a job's processes come and go."""
        self.cgroup = cgroup
        """The cgroup that the request names; None if it names processes or a job."""
        self.plugin_options = plugin_options or {}
        """[plugins.options.NAME] of the configuration, NAME being the strategy's."""
        self.root = root
        """The directory under which the host's files lie."""
        self.notes: list[str] = [] if notes is None else notes
        """Sentences for the report."""
        self.snapshot: Snapshot | None = None
        """Where the pages lay before the first move, if old and new nodes overlap."""
        self._backend = backend
        self.destinations = (
            backend.topology().memory_nodes if destinations is None else destinations
        )
        """The nodes with memory to which pages may go."""
        of_nodes = node_map.sources if sources is None else sources
        self._view = View(backend, processes, of_nodes, selection)
        self.headroom = headroom or Headroom()
        """The room on the destinations, which the methods of this class watch."""
        self._sweeper = Sweeper(options, self.headroom)
        self._whole = WholeProcessMover(
            self._view, self._sweeper, self.headroom, node_map, options, self.notes
        )

    # -- for strategies --------------------------------------------------------------------------

    @property
    def processes(self) -> Sequence[MovingProcess]:
        return self._view.processes

    @property
    def sources(self) -> NodeSet:
        """The nodes whose pages the relocation is about."""
        return self._view.sources

    @property
    def takes_all(self) -> bool:
        """Whether the request leaves out no kind of memory."""
        return self._view.selection.takes_all

    @property
    def is_simulation(self) -> bool:
        """Whether the backend only pretends to move memory."""
        return self._backend.is_simulation

    @property
    def is_exact(self) -> bool:
        """Whether the last reading counted each page once; else its bytes are upper bounds."""
        return self._view.is_exact

    @property
    def unread_objects(self) -> Sequence[Unread]:
        """The shared-memory objects that the last reading could not look into."""
        return self._view.objects.unread

    def topology(self) -> Topology:
        """Return the host's nodes and their free memory, read now."""
        return self._backend.topology()

    def refresh(self) -> None:
        """Read where the memory of all processes lies, unless nothing has moved since."""
        self._view.refresh()

    def expire(self) -> None:
        """Forget what `refresh` read, because other means have changed the memory."""
        self._view.expire()

    def migrate(self) -> None:
        """Move every process whole, by migrate_pages(2), in as many calls as the map needs.

        If nodes exchange their memory, a page that arrived looks like one that has yet to leave.
        Such a map cannot be verified, or not even passed to the kernel, so it is carried out page
        by page, with a note.
        """
        calls = as_kernel_calls(self.node_map.moves)
        if calls is None or self.node_map.overlaps:
            self.notes.append(
                "nodes exchange their memory, which migrate_pages(2) cannot do verifiably:"
                " moved page by page"
            )
            self.sweep()
            return
        self._count_attempt()
        self.refresh()
        self._whole.migrate(self.processes, calls)
        if self.options.sweep_leftovers:
            self.sweep()
            return
        self.refresh()
        for part in (part for process in self.processes for part in process.objects):
            found = sum(part.selection.on(self.node_map.sources).values())
            part.left = {Reason.SKIPPED: found} if found else {}

    def sweep(self, processes: Sequence[MovingProcess] | None = None) -> None:
        """Move the selected pages of all processes (or of these) one by one, by move_pages(2).

        Pages that failed for a reason that may pass are retried with growing waits. What stayed
        in the end is counted in each process's `left`.
        """
        processes = list(self.processes if processes is None else processes)
        self.refresh()
        if self.node_map.overlaps:
            self._exchange(processes)
            return
        self._whole.migrate_sparse(processes)
        self._view.expire()
        parts = _parts(processes)
        retry_hidden = not self._whole.calls_beside_a_sweep()
        self._sweeper.sweep(map_units(parts, self.node_map), parts, retry_hidden=retry_hidden)
        self._whole.migrate_unreachable(processes)

    def move_first(self, heat: Heat) -> None:
        """Move the memory that `heat` knows, the hottest first.

        A page that fails is tried twice more, then left for `sweep`, which moves the others, too.
        Nothing moves if old and new nodes overlap.
        """
        self.refresh()
        if self.node_map.overlaps:
            return
        for units in heated_units(self.processes, self.node_map, heat):
            self._sweeper.sweep_first(units)
        self._view.expire()

    def observe(self, act: Callable[[], None]) -> int:
        """Call `act`, which has memory moved by other means, and record what left the old nodes.

        Return these bytes, negative if moved memory came back. What stayed counts as `unexplained`
        until it is swept. Not for a map whose old and new nodes overlap.
        """
        self._count_attempt()
        return observation.observe(act, self._view, self._sweeper, self.node_map)

    # -- for the pipeline ------------------------------------------------------------------------

    def steps(self) -> list[Move]:
        """Return the moves that carry out the map one after the other: this one if one will do.

        The old and new nodes of a step do not overlap, unless they exchange their memory. All steps
        share one reading of the memory.
        """
        maps = [pairs for pairs, _ in in_order([(None, self.node_map.pairs)])]
        if len(maps) < 2:
            return [self]
        return [self._by(replace(self.node_map, pairs=pairs)) for pairs in maps]

    @property
    def attempts(self) -> int:
        """Most sweeps that any page needed, the first one included."""
        return self._sweeper.attempts

    def take_snapshot(self) -> None:
        """Remember where pages lie if old and new nodes overlap; once, before the first move."""
        if self.node_map.overlaps and self.snapshot is None:
            self.refresh()
            self.snapshot = Snapshot(_parts(self.processes), self.node_map)

    def report_progress(self, progress: Progress, planned: int) -> None:
        """Call `progress` with (bytes moved so far, `planned`) as pages move."""
        self._sweeper.report_progress(progress, planned)

    def plan_pages(self, choose: PageChoice) -> None:
        """Ask `choose` about every selected page; set the `page_plan` of each process.

        Nothing moves before `carry_out`. Raise RefusedError or PluginError for a wrong answer.
        """
        self.refresh()
        usable = self.destinations & self._backend.allowed_nodes()
        page_choice.plan_pages(self.processes, self.sources, usable, choose)

    def carry_out(self) -> None:
        """Sweep the pages that the processes' page plans name."""
        self._view.expire()
        self._sweeper.sweep(planned_units(self.processes), self.processes, retry_hidden=True)

    def carry_out_lots(self, lots: Sequence[Lot], to: int, *, retry_hidden: bool) -> int:
        """Sweep the pages of these lots to the node `to`, and return the bytes that have moved.

        What stayed is counted in `left` of the processes that have some of them.
        """
        self._view.expire()
        parts = list({id(lot.part): lot.part for lot in lots}.values())
        units = (transfer_unit(lot.part, replace(lot.transfer, new=to)) for lot in lots)
        before = sum(sum(part.moved.values()) for part in parts)
        self._sweeper.sweep(gather(units), parts, retry_hidden=retry_hidden)
        return sum(sum(part.moved.values()) for part in parts) - before

    def replace_processes(self, processes: Iterable[MovingProcess]) -> None:
        """Go on with these processes: some have joined the request, or taken a pid over."""
        self._view.processes = list(processes)

    def replace_target(self, process: MovingProcess, target: Target) -> None:
        """Go on with the new address space of a process that has become another program."""
        process.target, process.gone = target, False
        process.left, process.settled = {}, {}
        self._view.expire()

    def _by(self, node_map: NodeMap) -> Move:
        """Return the move of the same memory by another map."""
        other = copy(self)
        other.node_map, other.snapshot = node_map, None
        other._whole = WholeProcessMover(
            self._view, self._sweeper, self.headroom, node_map, self.options, self.notes
        )
        return other

    def _exchange(self, processes: Sequence[MovingProcess]) -> None:
        """Sweep by a map whose old and new nodes overlap: each page from where it lay at first.

        What the backend did not see then, and what appears later, cannot be told from what has
        arrived: it stays, and the former is left as hidden.
        """
        self.take_snapshot()
        assert self.snapshot is not None
        self._view.expire()
        parts = _parts(processes)
        self._sweeper.sweep(self.snapshot.units(parts), parts, retry_hidden=True)
        for process in processes:
            if size := self.snapshot.unseen(process):
                add_sizes(process.left, {Reason.HIDDEN.value: size})

    def _count_attempt(self) -> None:
        self._sweeper.attempts = max(self._sweeper.attempts, 1)


def _parts(processes: Iterable[MovingProcess]) -> list[MovingMemory]:
    return [part for process in processes for part in process.parts]
