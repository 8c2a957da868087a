"""Where the memory of all processes lies, read together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from schedhook.migration.processes import MovingProcess
from schedhook.migration.selection import ProcessSelection, Selected, Selection, select
from schedhook.values.errors import ProcessGoneError
from schedhook.values.model import Area
from schedhook.values.sets import NodeSet


class View:
    """The processes' residency, read again when it may have changed.

    All processes are read together, since what one may move depends on who else maps it.
    """

    def __init__(
        self, processes: Iterable[MovingProcess], sources: NodeSet, selection: Selection
    ) -> None:
        self.processes = list(processes)
        self.sources = sources
        """The nodes whose pages the relocation is about."""
        self.selection = selection
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
        found = select(areas, self.sources, self.selection)
        for process in self.processes:
            process.selection = found[process.pid]
        self._read = set(map(id, self.processes))

    def reread(self, process: MovingProcess) -> None:
        """Read one process again, and keep what was decided about memory that it shares."""
        if len(self.processes) == 1:
            self.expire()
            self.refresh()
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
