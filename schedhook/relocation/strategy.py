"""Call a strategy, which is a plug-in and may raise anything."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from schedhook.migration.move import Move
from schedhook.plugins.descriptors import StrategyPlugin
from schedhook.roles.guidance import Guidance
from schedhook.values.errors import PLUGIN_ERRORS, RefusedError, SchedhookError
from schedhook.values.model import Outcome
from schedhook.values.text import describe_error


class StrategyFailedError(SchedhookError):
    """The strategy raised something that is no error of schedhook's."""


def choose_nodes(
    strategy: StrategyPlugin, move: Move, guidance: Guidance | None, notes: list[str]
) -> Outcome | None:
    """Let a strategy that decides page by page make its page plans.

    Return the outcome if that ends the relocation, else None; any other strategy has no part in
    this. Raise SchedhookError for what is wrong with the request or the answers.
    """
    if strategy.choose_nodes is None:
        return None
    try:
        with strategy_errors(strategy.name):
            choose = strategy.choose_nodes(move)
            move.plan_pages(choose if guidance is None else guidance.watch(choose))
    except RefusedError as refusal:
        notes.append(str(refusal))
        return Outcome.REFUSED
    except StrategyFailedError as failure:
        notes.append(str(failure))
        return Outcome.FAILED
    return None


def objection(strategy: StrategyPlugin, move: Move) -> str | None:
    """Return why the strategy cannot carry out the move; None if it can."""
    if strategy.check is None:
        return None
    try:
        with strategy_errors(strategy.name):
            strategy.check(move)
    except (RefusedError, StrategyFailedError) as error:
        return str(error)
    return None


@contextmanager
def strategy_errors(name: str) -> Iterator[None]:
    """Raise StrategyFailedError for what is raised in the block and is no SchedhookError."""
    try:
        yield
    except SchedhookError:
        raise
    except PLUGIN_ERRORS as error:
        raise StrategyFailedError(f"strategy {name!r} failed: {describe_error(error)}") from error
