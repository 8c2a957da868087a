"""The plan of a relocation on a terminal: bytes by pair of nodes, and by process."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from schedhook.cli.output.tables import Column, cell, empty_table, make_table
from schedhook.cli.output.text import size
from schedhook.values.fit import rooms_by_node, would_reclaim
from schedhook.values.model import Plan, ProcessPlan

_MATRIX_COLUMN = 12
"""About the width of one destination in the matrix."""


def _where(process: ProcessPlan) -> str:
    return ", ".join(f"{old} to {new}: {size(n)}" for (old, new), n in process.moves.items())


_PROCESS_COLUMNS: tuple[Column[ProcessPlan], ...] = (
    Column("pid", lambda each: str(each.pid), is_number=True),
    Column("command", lambda each: each.command, shrinks=True),
    Column("to move", lambda each: size(each.bytes_planned), is_number=True),
    Column("where", _where, shrinks=True),
)


def print_plan(plan: Plan, console: Console) -> None:
    """Print what would move between which nodes, and of which process; nothing if nothing would."""
    if not plan.moves:
        return
    destinations = len({new for _, new in plan.moves})
    fits = _MATRIX_COLUMN * (destinations + 1) <= console.width
    console.print(_matrix(plan) if fits else _pairs(plan, console))
    processes = [each for each in plan.processes if each.bytes_planned]
    console.print(make_table(_PROCESS_COLUMNS, processes, console))


def _matrix(plan: Plan) -> Table:
    """Return a table with a row for each old node and a column for each new one."""
    moves = plan.moves
    olds, news = (sorted({pair[side] for pair in moves}) for side in (0, 1))
    table = empty_table()
    table.add_column("from \\ to", no_wrap=True)
    for new in news:
        table.add_column(str(new), justify="right", no_wrap=True)
    for old in olds:
        row = (size(moves[old, new]) if (old, new) in moves else "" for new in news)
        table.add_row(cell(str(old)), *(cell(text) for text in row))
    table.add_section()
    table.add_row("arriving", *(cell(size(_arriving(plan, new))) for new in news))
    table.add_row("free", *(_free(plan, new) for new in news))
    if would_reclaim(plan):
        table.add_row("cache to drop", *(cell(_reclaimed(plan, new)) for new in news))
    return table


def _pairs(plan: Plan, console: Console) -> Table:
    """Return the same with a row for each pair, for more new nodes than the terminal has room."""
    columns: tuple[Column[tuple[int, int]], ...] = (
        Column("from", lambda pair: str(pair[0])),
        Column("to", lambda pair: str(pair[1])),
        Column("to move", lambda pair: size(plan.moves[pair]), is_number=True),
        Column("free", lambda pair: _free(plan, pair[1]), is_number=True),
        Column("cache to drop", lambda pair: _reclaimed(plan, pair[1]), is_number=True),
    )
    return make_table(columns, sorted(plan.moves), console)


def _arriving(plan: Plan, node: int) -> int:
    return sum(part for (_, new), part in plan.moves.items() if new == node)


def _free(plan: Plan, node: int) -> Text:
    """Return what is free on a new node, in red if the node has too little room in all."""
    leaving = sum(part for (old, _), part in plan.moves.items() if old == node)
    room = rooms_by_node(plan).get(node)
    is_short = room is None or _arriving(plan, node) - leaving > room.spare
    return cell(size(plan.free.get(node, 0)), "bold red" if is_short else "")


def _reclaimed(plan: Plan, node: int) -> str:
    reclaimed = would_reclaim(plan)
    return size(reclaimed[node]) if node in reclaimed else ""
