"""Processes and pages that appear during the move."""

from __future__ import annotations

from schedhook.migration.move import Move
from schedhook.migration.processes import MovingProcess
from schedhook.relocation.members import Members
from schedhook.relocation.notes import note_on_new_program

_ROUNDS = 3
"""Sweeps for processes and pages that appeared during the move."""


def refresh(move: Move, members: Members, notes: list[str]) -> None:
    """Read where the memory lies now, also that of processes that became other programs."""
    move.refresh()
    for process in members.processes:
        if process.gone and (target := members.attach_again(process)) is not None:
            move.replace_target(process, target)
            notes.append(note_on_new_program(process))
    move.refresh()


def sweep_newcomers(move: Move, members: Members, notes: list[str]) -> None:
    """Move what appeared during the move, in a limited number of rounds.

    If old and new nodes overlap, do nothing: what appeared looks like what has arrived.
    """
    if move.node_map.overlaps:
        return
    for _ in range(_ROUNDS):
        refresh(move, members, notes)
        late = [process for process in move.processes if _has_more(process, move)]
        late += members.attach_newcomers()
        move.replace_processes(members.processes)
        if not late or not move.options.sweep_leftovers:
            return
        move.sweep(late)
    refresh(move, members, notes)


def _has_more(process: MovingProcess, move: Move) -> bool:
    """Return whether more lies on source nodes than the last attempt left there."""
    return any(
        sum(part.selection.on(move.node_map.sources).values()) > sum(part.left.values())
        for part in process.parts
    )
