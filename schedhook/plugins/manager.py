"""The plug-in manager: loads plug-ins, finds what they provide by name, and tells observers.

A plug-in that is broken is recorded and left out; nothing that does not use it notices.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import pluggy

from schedhook.plugins import hookspecs
from schedhook.plugins.descriptors import (
    BackendPlugin,
    Descriptor,
    MapperPlugin,
    SchedulerPlugin,
    StrategyPlugin,
)
from schedhook.values.errors import PLUGIN_ERRORS, MigrationRefused, PluginError
from schedhook.values.log import get_logger

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint


GROUP = "schedhook"
"""The entry-point group of third parties' plug-ins."""
DISABLE_VARIABLE = "SCHEDHOOK_DISABLE_PLUGINS"
TRACE_VARIABLE = "SCHEDHOOK_TRACE_PLUGINS"
BUILT_IN = "built-in"

_ROLES: Mapping[type[Descriptor], tuple[str, str]] = {
    SchedulerPlugin: ("scheduler", "schedhook_schedulers"),
    MapperPlugin: ("mapper", "schedhook_mappers"),
    StrategyPlugin: ("strategy", "schedhook_strategies"),
    BackendPlugin: ("backend", "schedhook_backends"),
}

_ASKED = ("schedhook_doctor",)
_OBSERVED = tuple(
    name
    for name in vars(hookspecs)
    if name.startswith("schedhook_") and name not in {*_ASKED, *(it for _, it in _ROLES.values())}
)

_Role = TypeVar("_Role", bound=Descriptor)


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginSource:
    """Where a plug-in comes from."""

    name: str
    """Its entry point's name, or its module's."""
    package: str
    """Distribution and version, or `built-in`."""

    def __str__(self) -> str:
        return f"{self.name} ({self.package})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Why a plug-in, or a part of it, cannot be used; `what` is one line."""

    provider: PluginSource
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """A line of the listing."""

    role: str
    name: str
    summary: str
    provider: PluginSource


class Plugins:
    """What is loaded. Made by `load_plugins`."""

    def __init__(self, trace: bool = False) -> None:
        self._manager = pluggy.PluginManager("schedhook")
        self._manager.add_hookspecs(hookspecs)
        self._providers: dict[str, PluginSource] = {}
        self._found: dict[type[Descriptor], dict[str, list[tuple[Descriptor, PluginSource]]]] = {
            role: defaultdict(list) for role in _ROLES
        }
        self._problems: list[Problem] = []
        if trace:
            self._manager.add_hookcall_monitoring(self._trace_call, self._trace_return)

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What could not be loaded, in the order of loading."""
        return tuple(self._problems)

    def strategy(self, name: str) -> StrategyPlugin:
        """PluginError for a name that nobody, or more than one plug-in, provides."""
        return self._one(StrategyPlugin, name)

    def mapper(self, name: str) -> MapperPlugin:
        """PluginError as for `strategy`."""
        return self._one(MapperPlugin, name)

    def backend(self, name: str) -> BackendPlugin:
        """PluginError as for `strategy`."""
        return self._one(BackendPlugin, name)

    def scheduler(self, name: str) -> SchedulerPlugin:
        """PluginError as for `strategy`."""
        return self._one(SchedulerPlugin, name)

    def names(self, role: type[Descriptor]) -> list[str]:
        """The names that exist for a role, sorted."""
        return sorted(self._found[role])

    def descriptors(self) -> list[Listed]:
        """Everything that is provided, by role and name; a name provided twice is there twice.

        A plug-in that observes is an `observer`, with its hooks as summary.
        """
        provided = [
            Listed(role=_ROLES[role][0], name=name, summary=each.summary, provider=provider)
            for role, by_name in self._found.items()
            for name, entries in sorted(by_name.items())
            for each, provider in entries
        ]
        observers = [
            Listed(role="observer", name=provider.name, summary=", ".join(hooks), provider=provider)
            for key, provider in self._providers.items()
            if (hooks := [hook for hook in _OBSERVED if key in self._implementing(hook)])
        ]
        return provided + observers

    def notify(self, hook: str, **arguments: Any) -> None:
        """Call an observer hook of every plug-in, one after the other.

        One that fails is logged and passed over. MigrationRefused from `schedhook_before_migrate`
        is raised, with the plug-in's name; those after it are then not asked.
        """
        for name in self._implementing(hook):
            try:
                self._call(hook, name, **arguments)
            except MigrationRefused as refusal:
                if hook == "schedhook_before_migrate":
                    raise MigrationRefused(f"{self._providers[name]}: {refusal}") from refusal
                self._observer_failed(hook, name, refusal)
            except PLUGIN_ERRORS as error:
                self._observer_failed(hook, name, error)

    def ask(self, hook: str, **arguments: Any) -> Iterator[tuple[PluginSource, Any]]:
        """What each plug-in with this hook answers; a PluginError for one that fails."""
        for name in self._implementing(hook):
            try:
                answer = next(iter(self._call(hook, name, **arguments)), ())
            except PLUGIN_ERRORS as error:
                answer = PluginError(f"{hook}: {_one_line(error)}")
            yield self._providers[name], answer

    def add(self, provider: PluginSource, load: Callable[[], object]) -> None:
        """Load one plug-in, then `register` it; trouble is recorded."""
        try:
            plugin = load()
        except PLUGIN_ERRORS as error:
            self._record(provider, _one_line(error))
        else:
            self.register(provider, plugin)

    def register(self, provider: PluginSource, plugin: object) -> None:
        """Register one plug-in and collect what it provides; trouble is recorded."""
        key = f"{len(self._providers)}: {provider}"
        self._providers[key] = provider
        try:
            hash(plugin)  # pluggy puts plug-ins in sets, and would fail in calls of others
            if known := self._manager.get_name(plugin):
                misfit: str | None = f"is the same as {self._providers[known]}"
            else:
                self._manager.register(plugin, key)
                misfit = self._misfit(plugin)
        except PLUGIN_ERRORS as error:
            misfit = _one_line(error)
        if misfit:
            if self._manager.has_plugin(key):
                self._manager.unregister(name=key)
            self._record(provider, misfit)
            return
        for role, (_, hook) in _ROLES.items():
            if key in self._implementing(hook):
                self._collect(role, hook, key)

    def scan(self) -> list[tuple[PluginSource, EntryPoint]]:
        """Plug-ins of installed packages, by name; none where the metadata cannot be read."""
        from importlib.metadata import entry_points  # noqa: PLC0415 - only where they are wanted

        found = []
        try:
            for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
                package = f"{entry.dist.name} {entry.dist.version}" if entry.dist else "unknown"
                found.append((PluginSource(name=entry.name, package=package), entry))
        except Exception as error:  # noqa: BLE001 - whatever is wrong with a stranger's metadata
            scanner = PluginSource(name=GROUP, package="entry points")
            self._record(scanner, f"package metadata cannot be read: {_one_line(error)}")
        return found

    def _record(self, provider: PluginSource, what: str) -> None:
        self._problems.append(Problem(provider=provider, what=what))
        get_logger().warning("plug-in cannot be used", plugin=str(provider), problem=what)

    def _misfit(self, plugin: object) -> str | None:
        """What pluggy lets pass and would then never call."""
        callers = self._manager.get_hookcallers(plugin)
        if not callers:
            return "has no hooks; mark its functions with @schedhook.hookimpl"
        for caller in callers:
            if not caller.has_spec():
                return f"{caller.name} is not a hook of schedhook"
            for implementation in caller.get_hookimpls():
                is_wrapper = implementation.hookwrapper or implementation.wrapper
                if implementation.plugin is plugin and is_wrapper:
                    return f"{caller.name} is a wrapper; hooks of schedhook cannot be wrapped"
        return None

    def _collect(self, role: type[Descriptor], hook: str, key: str) -> None:
        provider = self._providers[key]
        try:
            results = self._call(hook, key)
        except PLUGIN_ERRORS as error:
            self._record(provider, f"{hook}: {_one_line(error)}")
            return
        provided = results[0] if results else None
        if not isinstance(provided, (list, tuple)):
            self._record(provider, f"{hook} returned {provided!r} instead of a list")
            return
        for each in provided:
            if isinstance(each, role):
                self._found[role][each.name].append((each, provider))
            else:
                self._record(provider, f"{hook} returned {each!r} instead of a {role.__name__}")

    def _implementing(self, hook: str) -> list[str]:
        """Names of the plug-ins with this hook, in the order in which pluggy calls them."""
        caller = getattr(self._manager.hook, hook)
        return [each.plugin_name for each in reversed(caller.get_hookimpls())]

    def _call(self, hook: str, name: str, **arguments: Any) -> list[Any]:
        """Call one plug-in's hook alone, so that what it raises is known to be its own."""
        others = [plugin for other, plugin in self._manager.list_name_plugin() if other != name]
        results: list[Any] = self._manager.subset_hook_caller(hook, others)(**arguments)
        return results

    def _observer_failed(self, hook: str, name: str, error: BaseException) -> None:
        log = get_logger()
        plugin = str(self._providers[name])
        log.warning("observer failed", plugin=plugin, hook=hook, error=_one_line(error))
        log.debug("observer's traceback", plugin=plugin, hook=hook, exc_info=error)

    def _trace_call(self, hook: str, methods: Any, arguments: Mapping[str, Any]) -> None:
        for method in methods:
            plugin = str(self._providers[method.plugin_name])
            given = dict(arguments)
            get_logger().info("hook called", hook=hook, plugin=plugin, arguments=given)

    def _trace_return(self, outcome: Any, hook: str, methods: Any, _arguments: Any) -> None:
        error = _one_line(outcome.exception) if outcome.exception else None
        for method in methods:
            plugin = str(self._providers[method.plugin_name])
            get_logger().info("hook returned", hook=hook, plugin=plugin, error=error)

    def _one(self, role: type[_Role], name: str) -> _Role:
        word = _ROLES[role][0]
        entries = self._found[role].get(name, [])
        if len(entries) > 1:
            providers = " and ".join(str(provider) for _, provider in entries)
            raise PluginError(
                f"{word} {name!r} is provided by {providers}; remove one, or name it in"
                f" plugins.disabled or ${DISABLE_VARIABLE}"
            )
        if not entries:
            existing = ", ".join(self.names(role)) or "none"
            broken = len({problem.provider for problem in self._problems})
            hint = f"; {broken} broken, see `schedhook plugins`" if broken else ""
            raise PluginError(f"no {word} is called {name!r}; there are: {existing}{hint}")
        found = entries[0][0]
        assert isinstance(found, role)
        return found


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
