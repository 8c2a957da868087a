"""The descriptors that plug-ins provide, by role and name."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import TypeVar

from schedhook.plugins.descriptors import (
    BackendPlugin,
    Descriptor,
    MapperPlugin,
    SchedulerPlugin,
    StrategyPlugin,
)
from schedhook.plugins.sources import ListedPlugin, PluginSource
from schedhook.values.errors import PluginError

DISABLE_VARIABLE = "SCHEDHOOK_DISABLE_PLUGINS"
"""Environment variable with names of plug-ins or packages to leave out, or `all`."""

REGISTRATION_HOOKS: Mapping[str, type[Descriptor]] = {
    "schedhook_schedulers": SchedulerPlugin,
    "schedhook_mappers": MapperPlugin,
    "schedhook_strategies": StrategyPlugin,
    "schedhook_backends": BackendPlugin,
}
"""Plug-in hooks that return a list of descriptors, and the role of these."""

_WORDS: Mapping[type[Descriptor], str] = {
    SchedulerPlugin: "scheduler",
    MapperPlugin: "mapper",
    StrategyPlugin: "strategy",
    BackendPlugin: "backend",
}

_Role = TypeVar("_Role", bound=Descriptor)


class Registry:
    """Every descriptor with the plug-in that provides it; a name may be provided twice."""

    def __init__(self) -> None:
        self._found: dict[type[Descriptor], dict[str, list[tuple[Descriptor, PluginSource]]]] = {
            role: defaultdict(list) for role in _WORDS
        }

    def add(self, role: type[Descriptor], descriptor: Descriptor, source: PluginSource) -> None:
        """Add a descriptor of this role, provided by the plug-in from `source`."""
        self._found[role][descriptor.name].append((descriptor, source))

    def names(self, role: type[Descriptor]) -> list[str]:
        """Return the names that exist for a role, sorted."""
        return sorted(self._found[role])

    def get(self, role: type[_Role], name: str, hint: str = "") -> _Role:
        """Return the one descriptor with this name.

        Raise PluginError if no plug-in, or more than one, provides it; `hint` ends the message
        about a name that does not exist.
        """
        word = _WORDS[role]
        entries = self._found[role].get(name, [])
        if len(entries) > 1:
            sources = " and ".join(str(source) for _, source in entries)
            raise PluginError(
                f"{word} {name!r} is provided by {sources}; remove one, or name it in"
                f" plugins.disabled or ${DISABLE_VARIABLE}"
            )
        if not entries:
            existing = ", ".join(self.names(role)) or "none"
            raise PluginError(f"no {word} is called {name!r}; there are: {existing}{hint}")
        found = entries[0][0]
        assert isinstance(found, role)
        return found

    def listing(self) -> Iterator[ListedPlugin]:
        """Yield a line for each descriptor, by role and name."""
        for role, by_name in self._found.items():
            for name, entries in sorted(by_name.items()):
                for each, source in entries:
                    yield ListedPlugin(
                        role=_WORDS[role], name=name, summary=each.summary, source=source
                    )
