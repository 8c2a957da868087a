"""Call the plug-in hooks of one plug-in at a time, so that a failure has a name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import pluggy

from schedhook.plugins import hookspecs
from schedhook.plugins.sources import PluginSource
from schedhook.values.errors import PluginError
from schedhook.values.log import get_logger
from schedhook.values.text import describe_error


class HookCalls:
    """The registered plug-ins, and calls to their hooks; pluggy is used only here."""

    def __init__(self, *, trace: bool = False) -> None:
        self._manager = pluggy.PluginManager("schedhook")
        self._manager.add_hookspecs(hookspecs)
        self._sources: dict[str, PluginSource] = {}
        if trace:
            self._manager.add_hookcall_monitoring(self._trace_call, self._trace_return)

    def register(self, source: PluginSource, plugin: object) -> None:
        """Register a plug-in.

        Raise PluginError if it is registered already, or has no hooks, an unknown hook or a
        wrapper; and what pluggy raises, for example about a wrong signature.
        """
        hash(plugin)  # pluggy keeps plug-ins in sets, and would fail in calls of other plug-ins
        if known := self._manager.get_name(plugin):
            raise PluginError(f"is the same as {self._sources[known]}")
        key = f"{len(self._sources)}: {source}"
        self._sources[key] = source
        try:
            self._manager.register(plugin, key)
            self._check_hooks(plugin)
        except BaseException:
            if self._manager.has_plugin(key):
                self._manager.unregister(name=key)
            raise

    def calls(
        self, hook: str, arguments: Mapping[str, Any], plugin: object = None
    ) -> Iterator[tuple[PluginSource, Callable[[], Any]]]:
        """Yield each plug-in with this hook (or only `plugin`) and a function that calls it.

        The function returns what the hook returns, or None, and raises what it raises.
        """
        for implementation in self._implementations(hook):
            if plugin is None or implementation.plugin is plugin:
                key = implementation.plugin_name
                yield self._sources[key], partial(self._call, hook, key, arguments)

    def implemented(self, hooks: tuple[str, ...]) -> Iterator[tuple[PluginSource, list[str]]]:
        """Yield each plug-in that has any of these hooks, and which of them it has."""
        keys = {hook: {each.plugin_name for each in self._implementations(hook)} for hook in hooks}
        for key, source in self._sources.items():
            if found := [hook for hook in hooks if key in keys[hook]]:
                yield source, found

    def _implementations(self, hook: str) -> list[Any]:
        """Return pluggy's implementations of a hook, in the order in which it calls them."""
        caller = getattr(self._manager.hook, hook)
        return list(reversed(caller.get_hookimpls()))

    def _call(self, hook: str, key: str, arguments: Mapping[str, Any]) -> Any:
        others = [plugin for other, plugin in self._manager.list_name_plugin() if other != key]
        results: list[Any] = self._manager.subset_hook_caller(hook, others)(**arguments)
        return results[0] if results else None

    def _check_hooks(self, plugin: object) -> None:
        """Raise PluginError for what pluggy accepts but would never call."""
        callers = self._manager.get_hookcallers(plugin)
        if not callers:
            raise PluginError("has no plug-in hooks; mark its functions with @schedhook.hookimpl")
        for caller in callers:
            if not caller.has_spec():
                raise PluginError(f"{caller.name} is not a plug-in hook")
            for each in caller.get_hookimpls():
                if each.plugin is plugin and _is_wrapper(each):
                    raise PluginError(
                        f"{caller.name} is a wrapper; plug-in hooks cannot be wrapped"
                    )

    def _trace_call(self, hook: str, methods: Any, arguments: Mapping[str, Any]) -> None:
        for method in methods:
            plugin = str(self._sources[method.plugin_name])
            get_logger().info(
                "plug-in hook called", hook=hook, plugin=plugin, arguments=dict(arguments)
            )

    def _trace_return(self, outcome: Any, hook: str, methods: Any, _arguments: Any) -> None:
        error = describe_error(outcome.excinfo[1]) if outcome.excinfo else None
        for method in methods:
            plugin = str(self._sources[method.plugin_name])
            get_logger().info("plug-in hook returned", hook=hook, plugin=plugin, error=error)


def _is_wrapper(implementation: Any) -> bool:
    """Return whether a hook's implementation wraps others; pluggy before 1.2 has one kind only."""
    return bool(implementation.hookwrapper or getattr(implementation, "wrapper", False))
