"""Record what moves by other means than the calls of this package."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from schedhook.migration.processes import MovingProcess
from schedhook.migration.sweeper import Sweeper
from schedhook.migration.view import View
from schedhook.values.model import NodeMap
from schedhook.values.reasons import Reason


def observe(act: Callable[[], None], view: View, sweeper: Sweeper, node_map: NodeMap) -> int:
    """Call `act`, and record which bytes have left the old nodes when it returns or raises.

    Return these bytes; the number is negative if moved memory came back.
    """
    view.expire()
    view.refresh()
    before = {each.pid: each.selection.on(node_map.sources) for each in view.processes}
    try:
        act()
    finally:
        view.expire()
        view.refresh()
        total = sum(
            _record(each, before[each.pid], sweeper, node_map)
            for each in view.processes
            if not each.gone
        )
    return total


def _record(
    process: MovingProcess, before: Mapping[int, int], sweeper: Sweeper, node_map: NodeMap
) -> int:
    after = process.selection.on(node_map.sources)
    change = {}
    for node in before.keys() | after.keys():
        pair = (node, node_map.pairs[node])
        # What the job has allocated there since is not what came back.
        most_back = -process.moved.get(pair, 0)
        change[pair] = max(before.get(node, 0) - after.get(node, 0), most_back)
    sweeper.record(process, change)
    stayed = sum(min(size, after.get(node, 0)) for node, size in before.items())
    process.left = {Reason.UNEXPLAINED: stayed} if stayed else {}
    return sum(change.values())
