"""Descriptors: what a registration hook returns.

A descriptor has a name by which the configuration chooses it, a summary for listings, and a
function that does the work. Import what is heavy inside that function: the descriptors of every
plug-in are made in every run, and most are never chosen.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from schedhook.values.errors import PluginError

if TYPE_CHECKING:
    from schedhook.host.topology import Topology
    from schedhook.migration.move import Move
    from schedhook.roles.backend import Backend
    from schedhook.roles.scheduler import Scheduler
    from schedhook.roles.strategy import PageChoice
    from schedhook.values.model import NodeMap
    from schedhook.values.sets import NodeSet

_NAME = re.compile(r"[a-z][a-z0-9-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptor:
    """What every descriptor has. Raise PluginError for a name or summary of the wrong form."""

    name: str
    """As written in the configuration: lower-case letters, digits, hyphens; a letter first."""
    summary: str
    """One line for listings."""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            raise PluginError(
                f"{self.name!r} is not a name for a descriptor: use lower-case letters, digits and"
                " hyphens, and begin with a letter"
            )
        if not isinstance(self.summary, str) or not self.summary or "\n" in self.summary:
            raise PluginError(f"the summary of {self.name!r} must be one line of text")


@dataclass(frozen=True, slots=True, kw_only=True)
class StrategyPlugin(Descriptor):
    """A way to move pages: either `move` or `choose_nodes`."""

    move: Callable[[Move], None] | None = None
    """Moves the pages of the given Move by its methods; the pipeline verifies the result."""
    choose_nodes: Callable[[Move], PageChoice] | None = None
    """Returns the function that chooses a node for each page of the given Move.

    The plan is made from its choices, each page being asked about once. The pipeline then checks
    the plan, moves the pages and verifies the result. Such a strategy needs no node map.
    """
    check: Callable[[Move], None] | None = None
    """Raises RefusedError if the strategy cannot carry out the Move; called in a dry run too."""
    options: frozenset[str] | None = None
    """The keys that [plugins.options.NAME] may have; None: the strategy checks them itself."""
    changes_cpuset: bool = False
    """Whether the strategy allows the processes the new nodes itself.

    If not, a plan with nodes outside the processes' cpuset is refused.
    """

    def __post_init__(self) -> None:
        Descriptor.__post_init__(self)
        if (self.move is None) == (self.choose_nodes is None):
            raise PluginError(
                f"the strategy {self.name!r} must have either `move` or `choose_nodes`"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class MapperPlugin(Descriptor):
    """A rule that pairs old nodes with new ones."""

    map: Callable[[NodeSet, NodeSet, Topology], NodeMap]
    """Returns a map for (old nodes, new nodes, the host's topology).

    Every old node is a key; its value is a new node, or the old node itself. Raises UsageError if
    there is no such map.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendPlugin(Descriptor):
    """A way to reach processes and nodes."""

    create: Callable[[Path], Backend]
    """Returns the backend for a host whose /proc and /sys are in the given directory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerPlugin(Descriptor):
    """An adapter for a batch scheduler."""

    create: Callable[[Path], Scheduler]
    """Returns the adapter for a host whose /proc and /sys are in the given directory."""
