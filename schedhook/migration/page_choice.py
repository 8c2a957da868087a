"""Ask a strategy page by page, and turn its answers into page plans.

def choose(pages: Pages) -> Choice:
    return [fast if is_hot(address) else None for address in pages.addresses]
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from schedhook.migration.page_plan import PagePlan, Transfer
from schedhook.migration.processes import MovingProcess
from schedhook.migration.runs import clip, spread
from schedhook.migration.selection import ProcessSelection, Selected
from schedhook.migration.unreachable import unreachable_bytes
from schedhook.roles.backend import PageRun
from schedhook.roles.strategy import PageChoice, Pages
from schedhook.values.errors import PluginError, ProcessGoneError, RefusedError
from schedhook.values.extents import Extents
from schedhook.values.model import Area
from schedhook.values.objects import ObjectId
from schedhook.values.sets import NodeSet


def plan_pages(
    processes: Sequence[MovingProcess], sources: NodeSet, usable: NodeSet, choose: PageChoice
) -> None:
    """Ask `choose` about every selected page on `sources`, and set each process's `page_plan`.

    `usable` are the nodes with memory that the caller may use. Memory that several of the
    processes share is asked about once. Raises what `decide` raises.
    """
    aliases = find_aliases({each.pid: each.selection for each in processes})
    for process in processes:
        plan = process.page_plan = PagePlan(unreachable=unreachable_bytes(process, sources))
        # Pages that no process maps have no address to ask about.
        plan.kept += sum(sum(each.selection.on(sources).values()) for each in process.objects)
        try:
            allowed = usable & process.target.allowed_nodes()
            for item in process.selection.selected:
                others = aliases(process.pid, item.area)
                for start, end in spread(process.target, item.area):
                    located = process.target.locate(item.area, start, end)
                    on_sources = (run for run in located if run.node in sources and not run.hidden)
                    counted = (part for run in on_sources for part in clip(run, item.pages))
                    questions = (
                        _question(process.pid, item.area, run, allowed, others) for run in counted
                    )
                    _add_answers(plan, item, (start, end), questions, choose)
        except ProcessGoneError:
            process.gone = True


def decide(pages: Pages, choose: PageChoice) -> Iterator[tuple[int, int, int]]:
    """Ask about these pages; yield (start, end, node) of those that must move, ascending.

    Raise PluginError if the answer's length differs from the question's, RefusedError for a node
    that the process may not use.
    """
    choice = choose(pages)
    if choice is None:
        return
    count = len(pages.addresses)
    answers = [choice] * count if isinstance(choice, int) else choice
    if len(answers) != count:
        raise PluginError(f"the strategy was asked about {count} pages and answered {len(answers)}")
    position = 0
    while position < count:
        node, first = answers[position], position
        while position < count and answers[position] == node:
            position += 1
        if node is None or node == pages.node:
            continue
        start, end = pages.start + first * pages.page_size, pages.start + position * pages.page_size
        if node not in pages.allowed:
            raise RefusedError(
                f"the strategy wants page {start:#x} of process {pages.pid} on node {node}, but"
                f" the process may only use node {pages.allowed}"
            )
        yield start, end, node


def find_aliases(
    selections: Mapping[int, ProcessSelection],
) -> Callable[[int, Area], list[tuple[int, int]]]:
    """Return a function from (pid, area) to the other mappings of the area's shared memory.

    Each mapping is (pid, what to add to an address in the area to get the one there).
    """
    bases: dict[ObjectId, list[tuple[int, int]]] = {}
    for pid, selection in selections.items():
        for item in selection.selected:
            if item.area.is_shared and item.area.object_id:
                base = item.area.start - item.area.offset
                bases.setdefault(item.area.object_id, []).append((pid, base))

    def aliases(pid: int, area: Area) -> list[tuple[int, int]]:
        if not (area.is_shared and area.object_id):
            return []
        mine = area.start - area.offset
        known = dict.fromkeys(bases.get(area.object_id, ()))
        return [(other, base - mine) for other, base in known if (other, base) != (pid, mine)]

    return aliases


def _question(
    pid: int,
    area: Area,
    run: PageRun,
    allowed: NodeSet,
    aliases: Sequence[tuple[int, int]],
) -> Pages:
    return Pages(
        pid=pid,
        kind=area.kind,
        node=run.node,
        page_size=run.page_size,
        addresses=range(run.start, run.end, run.page_size),
        allowed=allowed,
        aliases=aliases,
    )


def _add_answers(
    plan: PagePlan,
    item: Selected,
    part: tuple[int, int],
    questions: Iterable[Pages],
    choose: PageChoice,
) -> None:
    """Ask about one part [start, end) of an area, and add the answers to the plan."""
    wanted: dict[tuple[int, int], Extents] = {}
    for pages in questions:
        plan.kept += pages.end - pages.start
        for first, last, new in decide(pages, choose):
            wanted.setdefault((pages.node, new), Extents()).add(first, last)
            plan.kept -= last - first
    for (old, new), extents in sorted(wanted.items()):
        plan.add(
            Transfer(
                area=item.area,
                shared=item.shared,
                start=part[0],
                end=part[1],
                old=old,
                new=new,
                pages=extents,
            )
        )
