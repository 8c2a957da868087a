"""Carry out a plan: bind, rebind policies, freeze, move, follow what appears, and verify."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from schedhook.control.affinity import Binding
from schedhook.control.freezer import cgroups_to_freeze, freeze_cgroups
from schedhook.control.rebinding import Rebinding
from schedhook.migration.move import Move
from schedhook.relocation.context import Context
from schedhook.relocation.newcomers import sweep_newcomers
from schedhook.relocation.report import final_report, plan_report
from schedhook.relocation.strategy import strategy_errors
from schedhook.relocation.unread import count_unmapped
from schedhook.relocation.verify import settle
from schedhook.values.errors import RefusedError, SchedhookError
from schedhook.values.model import Outcome, Plan, Policies, Report


def carry_out(context: Context, move: Move, plan: Plan) -> Report:
    """Carry out the plan, and return the report of what residency then shows.

    An observer, or a cgroup that cannot be frozen, may still refuse. If the move fails, threads
    get their old processors and policies back.
    """
    remember(move, context.root)
    cpus = context.settings.request.cpus
    binding = Binding(context.rollback, context.root)
    try:
        frozen = _cgroups_to_freeze(context)
        if frozen:
            context.rollback.prepare()
        context.plugins.notify("schedhook_before_migrate", plan=plan)
        if cpus is not None:
            binding.bind([process.target for process in move.processes], cpus)
    except RefusedError as refusal:
        binding.undo()
        context.notes.append(str(refusal))
        return plan_report(context, Outcome.REFUSED, plan)
    failure: str | None = None
    strategy = context.settings.strategy
    in_steps = strategy.move is not None and not strategy.changes_cpuset
    pending = move.steps() if in_steps else [move]
    try:
        with _rebound_policies(context, move):
            _move(context, pending, plan, frozen)
    except SchedhookError as error:
        failure = str(error)
        binding.undo()
    report = final_report(context, move, plan, pending, failure)
    context.plugins.notify("schedhook_after_migrate", report=report)
    return report


def remember(move: Move, root: Path) -> None:
    """Keep what was found of the move's memory, before anything moves."""
    for part in (part for process in move.processes for part in process.parts):
        part.before = part.selection
    count_unmapped(move, root)


def _move(context: Context, pending: list[Move], plan: Plan, frozen: Sequence[Path]) -> None:
    """Move the memory while the cgroups `frozen` stand still. Raise SchedhookError.

    `pending` are the steps of the move. Each is removed when it is settled; the last one stays.
    """
    if not plan.bytes_planned:
        return
    if context.progress:
        pending[0].report_progress(context.progress, plan.bytes_planned)
    strategy = context.settings.strategy
    with freeze_cgroups(frozen, context.rollback), strategy_errors(strategy.name):
        if strategy.move is None:
            pending[0].carry_out()
            return
        while True:
            pending[0].take_snapshot()
            strategy.move(pending[0])
            sweep_newcomers(pending[0], context.members, context.notes)
            if len(pending) == 1:
                return
            settle(pending.pop(0))


@contextlib.contextmanager
def _rebound_policies(context: Context, move: Move) -> Iterator[None]:
    """Rebind memory policies for the move, if so configured, and undo it if the move fails.

    They come first, so that what the processes allocate during the move is on the new nodes
    already. Threads and processes that appeared meanwhile are rebound in the end.
    """
    is_asked_for = context.settings.policies is Policies.REBIND and move.node_map.moves
    if not is_asked_for or context.backend.is_simulation:
        yield
        return
    rebinding = Rebinding(move.node_map, context.root)
    try:
        rebinding.follow(process.target for process in move.processes)
        yield
        rebinding.follow(process.target for process in move.processes)
        move.expire()
    except BaseException:
        rebinding.undo()
        raise
    finally:
        context.notes.extend(rebinding.notes())


def _cgroups_to_freeze(context: Context) -> list[Path]:
    if not context.settings.freeze:
        return []
    targets = [process.target for process in context.members.processes]
    return cgroups_to_freeze(targets, context.settings.request.cgroup, context.root)
