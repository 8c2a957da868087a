"""The memory policies that a relocation leaves behind: foreseen for the plan, read afterwards."""

from __future__ import annotations

from schedhook.migration.move import Move
from schedhook.migration.policies import ProcessPolicies, left_behind


def foresee_policies_left(move: Move) -> list[ProcessPolicies]:
    """Read the policies of all processes, and return those that moving pages will leave behind."""
    if not _changes_places(move):
        return []
    for process in move.processes:
        process.policies = process.read_policies()
    return _left_behind(move, [(each.policies, each.policies) for each in move.processes])


def read_policies_left(move: Move) -> list[ProcessPolicies]:
    """Read the policies again, and return those that were left behind."""
    if not _changes_places(move):
        return []
    living = (each for each in move.processes if not each.gone)
    return _left_behind(move, [(each.read_policies(), each.policies) for each in living])


def _changes_places(move: Move) -> bool:
    """Return whether memory is to leave a node for good, or nodes exchange it."""
    return bool(move.node_map.moves or move.sources - move.destinations)


def _left_behind(
    move: Move, policies: list[tuple[ProcessPolicies, ProcessPolicies]]
) -> list[ProcessPolicies]:
    """Return what of each process is left, for policies that are (now, before)."""
    moves, vacated = move.node_map.moves, move.sources - move.destinations
    return [left_behind(now, before, moves, vacated) for now, before in policies]
