"""Strategy `profile-guided`: move each page to the node that uses it most, by a profile.

`schedhook profile` uses it and reads the profile. A page stays where it is if the profile has too
few accesses to it, if no node has a clear share of them, or if the job does not run on that node.
"""

from __future__ import annotations

from collections.abc import Mapping

from schedhook import StrategyPlugin, hookimpl
from schedhook.migration.move import Move
from schedhook.roles.guidance import Guidance
from schedhook.roles.strategy import Choice, PageChoice, Pages
from schedhook.values.errors import UsageError
from schedhook.values.sets import NodeSet


def best_node(
    counts: Mapping[int, int], current: int, allowed: NodeSet, guidance: Guidance
) -> int | None:
    """Return the node of `allowed` with most accesses; None if the page stays on `current`."""
    candidates = {node: count for node, count in counts.items() if node in allowed}
    total = sum(counts.values())
    if not candidates or total < guidance.min_samples:
        return None
    most = max(candidates.values())
    if most < guidance.min_share * total or candidates.get(current) == most:
        return None
    return min(node for node, count in candidates.items() if count == most)


def choose_nodes(work: Move) -> PageChoice:
    """Return the choice that follows the request's profile. Raise UsageError if it has none."""
    guidance = work.guidance
    if guidance is None:
        raise UsageError(
            "the strategy profile-guided needs a profile of accesses: use `schedhook profile LOG`"
        )

    def choose(pages: Pages) -> Choice:
        allowed = pages.allowed & guidance.nodes
        answers: list[int | None] | None = None
        for index, counts in guidance.sampled(pages):
            node = best_node(counts, pages.node, allowed, guidance)
            if node is not None:
                answers = answers or [None] * len(pages.addresses)
                answers[index] = node
        return answers

    return choose


@hookimpl
def schedhook_strategies() -> list[StrategyPlugin]:
    return [
        StrategyPlugin(
            name="profile-guided",
            summary="each page to the node that uses it most, for `schedhook profile`",
            choose_nodes=choose_nodes,
            options=frozenset(),
        )
    ]
