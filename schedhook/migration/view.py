"""Where the memory of all processes lies, read together."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from schedhook.migration.census import Census
from schedhook.migration.objects import Objects
from schedhook.migration.processes import MovingProcess
from schedhook.migration.runs import locate
from schedhook.migration.selection import Selected, Selection, select
from schedhook.roles.backend import Backend, Target
from schedhook.values.errors import ProcessGoneError
from schedhook.values.model import Area, Residency
from schedhook.values.sets import NodeSet


class View:
    """The processes' residency, read again when it may have changed.

    All processes are read together, since what one may move depends on who else maps it.
    """

    def __init__(
        self,
        backend: Backend,
        processes: Iterable[MovingProcess],
        sources: NodeSet,
        selection: Selection,
    ) -> None:
        self.processes = list(processes)
        self.sources = sources
        """The nodes whose pages the relocation is about."""
        self.selection = selection
        self.is_exact = True
        """Whether the last reading counted each page once; else it gives upper bounds."""
        self._backend = backend
        self.objects = Objects(backend, sources, selection)
        self._read: set[int] = set()
        """Identities of the processes that the current reading covers."""

    def expire(self) -> None:
        """Forget the current reading, because memory may have moved."""
        self._read.clear()

    def refresh(self) -> None:
        """Read where the memory of all processes lies, unless the current reading still holds."""
        if self._read == set(map(id, self.processes)):
            return
        held = {process.pid for process in self.processes if not process.gone}
        areas = {process.pid: _read_areas(process, held) for process in self.processes}
        targets = {process.pid: process.target for process in self.processes}
        census = Census(self._backend, targets.get)
        found = select(areas, self.sources, self.selection, census)
        self.is_exact = census.is_exact
        for process in self.processes:
            process.selection = found[process.pid]
        self.objects.refresh(self.processes)
        self._read = set(map(id, self.processes))

    def reread(self, process: MovingProcess) -> None:
        """Read one process again; of pages that others have too, count with it what did before."""
        if len(self.processes) == 1:
            self.expire()
            self.refresh()
            return
        try:
            areas = process.target.areas()
            selected = [
                _read_again(process.target, item, area)
                for item, area in _pair(process.selection.selected, areas)
            ]
        except ProcessGoneError:
            process.gone = True
            areas, selected = (), []
        process.selection = replace(process.selection, selected=tuple(selected), areas=areas)


def _pair(items: Sequence[Selected], areas: Sequence[Area]) -> Iterator[tuple[Selected, Area]]:
    """Yield each area that is where an area of one of the items was, with that item.

    Since then it can have been split, or merged with others.
    """
    ends = [item.area.end for item in items]
    for area in areas:
        index = bisect_right(ends, area.start)
        if index < len(items) and items[index].area.start < area.end:
            yield items[index], area


def _read_again(target: Target, item: Selected, area: Area) -> Selected:
    counted: Residency = area.residency
    if item.only is not None:
        found: dict[int, int] = {}
        for run in locate(target, area, item.only) if item.only else ():
            found[run.node] = found.get(run.node, 0) + run.end - run.start
        counted = found
    return replace(item, area=area, counted=counted)


def _read_areas(process: MovingProcess, held: set[int]) -> Sequence[Area]:
    """Return the process's areas; none if it is gone, or if a process of `held` owns its memory."""
    owner = process.target.memory_owner_pid()
    process.memory_owner_pid = owner if owner in held else None
    if process.gone or process.memory_owner_pid is not None:
        return ()
    try:
        return process.target.areas()
    except ProcessGoneError:
        process.gone = True
        return ()
