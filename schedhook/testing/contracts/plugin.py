"""The base of the contracts for plug-ins."""

from __future__ import annotations

from schedhook.plugins.manager import Plugins
from schedhook.testing.relocations import load_given


class PluginContract:
    """What the contracts need to know about a plug-in."""

    plugin: object
    """The module, or object, that has the plug-in hooks."""
    name: str
    """The name of the descriptor under test."""

    def loaded(self) -> Plugins:
        """Load the plug-in and those that ship; raise AssertionError if one cannot be used."""
        return load_given(self.plugin)
