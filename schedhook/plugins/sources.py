"""Where plug-ins come from, and the lines of their listing."""

from __future__ import annotations

from dataclasses import dataclass

BUILT_IN = "built-in"
"""The `package` of the plug-ins that ship."""
GROUP = "schedhook"
"""The entry-point group of third parties' plug-ins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginSource:
    """Where a plug-in comes from."""

    name: str
    """Name of its entry point, or of its module."""
    package: str
    """Distribution and version, or `built-in`."""

    @property
    def names(self) -> set[str]:
        """Names that configuration can call it by: its own, and its package's."""
        return {self.name, self.package.partition(" ")[0]}

    def __str__(self) -> str:
        return f"{self.name} ({self.package})"


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginProblem:
    """The reason, in one line, why a plug-in or a part of it cannot be used."""

    source: PluginSource
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedPlugin:
    """One line of `schedhook plugins`: a descriptor, or an observer with its plug-in hooks."""

    role: str
    """`scheduler`, `mapper`, `strategy`, `backend` or `observer`."""
    name: str
    summary: str
    source: PluginSource
