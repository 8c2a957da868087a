"""What a registration hook returns: a name to be chosen by, a summary for listings, and a function
that does the work.

A descriptor is cheap to make. What is heavy belongs inside its function, since descriptors of
every plug-in are made in every run and most are never chosen.
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
    """What every descriptor has. PluginError for a name that nobody could write in a file."""

    name: str
    """As in configuration: small letters, digits and hyphens, a letter first."""
    summary: str
    """One line for listings."""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            raise PluginError(
                f"{self.name!r} is no name for a plug-in: use small letters, digits and hyphens,"
                " a letter first"
            )
        if not isinstance(self.summary, str) or not self.summary or "\n" in self.summary:
            raise PluginError(f"the summary of {self.name!r} has to be one line of text")


@dataclass(frozen=True, slots=True, kw_only=True)
class StrategyPlugin(Descriptor):
    """A way to move pages: either `move` or `choose_nodes`."""

    move: Callable[[Move], None] | None = None
    """Moves what the given move asks for and reports to it; the pipeline verifies afterwards."""
    choose_nodes: Callable[[Move], PageChoice] | None = None
    """For a strategy that decides page by page: from the move to the function that is asked where
    each page shall be. It is asked while the plan is made, once; the pipeline checks the plan,
    moves, and verifies. Such a strategy needs no node map."""
    check: Callable[[Move], None] | None = None
    """Asked with the plan, also in a dry run: RefusedError says why this strategy cannot."""
    changes_cpuset: bool = False
    """It sees to it that the processes may use the new nodes; else a plan that leads out of their
    cpuset is refused."""

    def __post_init__(self) -> None:
        Descriptor.__post_init__(self)
        if (self.move is None) == (self.choose_nodes is None):
            raise PluginError(
                f"the strategy {self.name!r} has to have either `move` or `choose_nodes`"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class MapperPlugin(Descriptor):
    """A rule that pairs old nodes with new ones."""

    map: Callable[[NodeSet, NodeSet, Topology], NodeMap]
    """From (old nodes, new nodes, the host's topology) to a map with every old node as a key and
    only new nodes as values. UsageError where there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendPlugin(Descriptor):
    """A way to reach processes and nodes."""

    create: Callable[[Path], Backend]
    """From the directory under which the host's files lie (/proc, /sys), `/` on a live host."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerPlugin(Descriptor):
    """An adapter for a batch scheduler."""

    create: Callable[[Path], Scheduler]
    """From the directory under which the host's files lie, `/` on a live host."""
