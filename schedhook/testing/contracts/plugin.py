"""The base of the contracts for plug-ins."""

from __future__ import annotations

from abc import ABC

from schedhook.plugins.manager import Plugins
from schedhook.testing.relocations import load_given


class PluginContract(ABC):
    """`plugin` is the module, or object, with hooks; `name` what it is chosen by."""

    plugin: object
    name: str

    def loaded(self) -> Plugins:
        return load_given(self.plugin)
