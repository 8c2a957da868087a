"""Pages that are in memory but that move_pages(2) does not find.

On any kernel these are pages of memfd_secret(2). On Linux 6.1 to 6.4 they are also pages of areas
without any access (PROT_NONE), and pages that NUMA balancing has marked so that the next access
faults; Linux 6.5 fixed that (commit d74943a2f3cd, "mm/gup: reintroduce FOLL_NUMA as
FOLL_HONOR_NUMA_FAULT"). migrate_pages(2) finds the latter two.
"""

from __future__ import annotations

from schedhook.migration.processes import MovingProcess
from schedhook.migration.units import spread
from schedhook.values.errors import ProcessGoneError
from schedhook.values.model import Area
from schedhook.values.sets import NodeSet


def unreachable_bytes(process: MovingProcess, nodes: NodeSet) -> int:
    """Return the unreachable bytes on `nodes`, of those that the process's selection counts.

    These are bytes that numa_maps counts in the last reading and in one made now, and that the
    backend does not locate in between.
    """
    located = dict[int, int]()
    for item in process.selection.selected:
        if item.counted and (there := item.area.resident_on(nodes)):
            found = _located(process, item.area, nodes)
            if found < there:
                located[item.area.start] = found
    if not located or process.gone:
        return 0
    before = {item.area.start: item.area.resident_on(nodes) for item in process.selection.selected}
    try:
        after = {area.start: area.resident_on(nodes) for area in process.target.areas()}
    except ProcessGoneError:
        process.gone = True
        return 0
    return sum(
        max(0, min(before[start], after.get(start, 0)) - found) for start, found in located.items()
    )


def _located(process: MovingProcess, area: Area, nodes: NodeSet) -> int:
    """Return the bytes of an area that the backend locates on `nodes`; all of it if it is gone."""
    total = 0
    for start, end in spread(area):
        if process.gone:
            return area.resident
        try:
            runs = process.target.locate(area, start, end)
        except ProcessGoneError:
            process.gone = True
        else:
            total += sum(run.end - run.start for run in runs if run.node in nodes)
    return total
