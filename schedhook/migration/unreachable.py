"""Pages that are in memory but that move_pages(2) does not find.

On any kernel these are pages of memfd_secret(2). On Linux 6.1 to 6.4 they are also pages of areas
without any access (PROT_NONE), and pages that NUMA balancing has marked so that the next access
faults; Linux 6.5 fixed that (commit d74943a2f3cd, "mm/gup: reintroduce FOLL_NUMA as
FOLL_HONOR_NUMA_FAULT"). migrate_pages(2) finds the latter two. A mark comes with the kernel's next
scan and goes with the process's next access, so what is hidden in one call need not be in another.

If pagemap shows frames (CAP_SYS_ADMIN, and a kernel without PAGEMAP_SCAN), the backend sees hidden
pages: it locates them, and reports them as failures. Else only numa_maps counts them.
"""

from __future__ import annotations

from schedhook.migration.processes import MovingProcess
from schedhook.migration.runs import locate
from schedhook.migration.selection import Selected
from schedhook.roles.backend import Target
from schedhook.values.errors import ProcessGoneError
from schedhook.values.sets import NodeSet


def unreachable_bytes(process: MovingProcess, nodes: NodeSet, *, only_unseen: bool = False) -> int:
    """Return the unreachable bytes on `nodes`, of those that the process's selection counts.

    These are bytes that numa_maps counts in the last reading and in one made now, and that the
    backend does not locate in between, or locates as hidden. `only_unseen`: only the former.
    """
    missing = list[tuple[int, int, int]]()
    """(start, bytes that were counted, bytes that are located) of each area."""
    try:
        for item in process.selection.selected:
            there = sum(size for node, size in item.counted.items() if node in nodes)
            found = _located(process.target, item, nodes, hidden_too=only_unseen) if there else 0
            if found < there:
                missing.append((item.area.start, there, found))
        if not missing:
            return 0
        after = {area.start: area.resident_on(nodes) for area in process.target.areas()}
    except ProcessGoneError:
        process.gone = True
        return 0
    return sum(max(0, min(there, after.get(start, 0)) - found) for start, there, found in missing)


def _located(target: Target, item: Selected, nodes: NodeSet, *, hidden_too: bool) -> int:
    """Return the counted bytes that the backend locates on `nodes`."""
    runs = locate(target, item.area, item.only)
    return sum(
        run.end - run.start for run in runs if run.node in nodes and (hidden_too or not run.hidden)
    )
