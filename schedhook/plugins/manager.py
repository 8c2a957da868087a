"""The plug-in manager: find descriptors by name, call observers, and record what is broken.

A plug-in that is broken is recorded and left out; what does not use it is not affected.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schedhook.plugins import hookspecs
from schedhook.plugins.calls import HookCalls
from schedhook.plugins.descriptors import (
    BackendPlugin,
    Descriptor,
    MapperPlugin,
    SchedulerPlugin,
    StrategyPlugin,
)
from schedhook.plugins.registry import REGISTRATION_HOOKS, Registry
from schedhook.plugins.sources import ListedPlugin, PluginProblem, PluginSource
from schedhook.roles.notes import JobNotes, MemoryNotes
from schedhook.values.errors import PLUGIN_ERRORS, MigrationRefused, PluginError
from schedhook.values.log import get_logger
from schedhook.values.text import describe_error

if TYPE_CHECKING:
    from schedhook.roles.scheduler import Scheduler

ANSWERING_HOOKS = ("schedhook_doctor",)
"""Plug-in hooks whose answers `Plugins.ask` yields."""
OBSERVER_HOOKS = tuple(
    name
    for name in vars(hookspecs)
    if name.startswith("schedhook_") and name not in {*ANSWERING_HOOKS, *REGISTRATION_HOOKS}
)
"""Plug-in hooks that `Plugins.notify` calls."""

ObserverFailed = Callable[[str, PluginSource, BaseException], None]
"""Called with the plug-in hook that failed, its plug-in and the exception."""


class Plugins:
    """The plug-ins that are loaded; made by `load_plugins`."""

    def __init__(
        self, *, trace: bool = False, observer_failed: ObserverFailed | None = None
    ) -> None:
        self._calls = HookCalls(trace=trace)
        self._observer_failed = observer_failed or _log_failure
        self._registry = Registry()
        self._problems: list[PluginProblem] = []
        self.notes: Callable[[str], JobNotes] = lambda _: MemoryNotes()
        """Make the notes of a scheduler's adapter out of the scheduler's name."""

    @property
    def problems(self) -> tuple[PluginProblem, ...]:
        """What could not be loaded, in the order of loading."""
        return tuple(self._problems)

    def strategy(self, name: str) -> StrategyPlugin:
        """Return the strategy; raise PluginError if no plug-in, or more than one, provides it."""
        return self._registry.get(StrategyPlugin, name, self._hint())

    def mapper(self, name: str) -> MapperPlugin:
        """Return the mapper; raise PluginError as `strategy` does."""
        return self._registry.get(MapperPlugin, name, self._hint())

    def backend(self, name: str) -> BackendPlugin:
        """Return the backend; raise PluginError as `strategy` does."""
        return self._registry.get(BackendPlugin, name, self._hint())

    def scheduler(self, name: str) -> SchedulerPlugin:
        """Return the scheduler's descriptor; raise PluginError as `strategy` does."""
        return self._registry.get(SchedulerPlugin, name, self._hint())

    def adapter(self, name: str, root: Path) -> Scheduler:
        """Make the scheduler's adapter, with its notes; raise PluginError as `strategy` does."""
        adapter = self.scheduler(name).create(root)
        adapter.notes = self.notes(name)
        return adapter

    def names(self, role: type[Descriptor]) -> list[str]:
        """Return the names that exist for a role, sorted."""
        return self._registry.names(role)

    def listing(self) -> list[ListedPlugin]:
        """Return all descriptors by role and name, then the observers.

        A name that is provided twice is listed twice. An observer's summary is the list of its
        plug-in hooks.
        """
        observers = [
            ListedPlugin(role="observer", name=source.name, summary=", ".join(hooks), source=source)
            for source, hooks in self._calls.implemented(OBSERVER_HOOKS)
        ]
        return [*self._registry.listing(), *observers]

    def notify(self, hook: str, **arguments: Any) -> None:
        """Call an observer hook of every plug-in, one after the other.

        If one fails, log it and go on. MigrationRefused from `schedhook_before_migrate` is
        raised with the plug-in's name; the plug-ins after it are then not called.
        """
        for source, call in self._calls.calls(hook, arguments):
            try:
                call()
            except MigrationRefused as refusal:
                if hook == "schedhook_before_migrate":
                    raise MigrationRefused(f"{source}: {refusal}") from refusal
                self._observer_failed(hook, source, refusal)
            except PLUGIN_ERRORS as error:
                self._observer_failed(hook, source, error)

    def ask(self, hook: str, **arguments: Any) -> Iterator[tuple[PluginSource, Any]]:
        """Yield the answer of each plug-in with this hook; if one fails, a PluginError.

        A plug-in that returns None has answered with the empty tuple.
        """
        for source, call in self._calls.calls(hook, arguments):
            try:
                answer = call()
            except PLUGIN_ERRORS as error:
                answer = PluginError(f"{hook}: {describe_error(error)}")
            yield source, () if answer is None else answer

    def register(self, source: PluginSource, plugin: object) -> None:
        """Register one plug-in and its descriptors; record and log what cannot be used."""
        try:
            self._calls.register(source, plugin)
        except PluginError as error:
            self.record(source, str(error))
        except PLUGIN_ERRORS as error:
            self.record(source, describe_error(error))
        else:
            for hook, role in REGISTRATION_HOOKS.items():
                for _, call in self._calls.calls(hook, {}, plugin):
                    try:
                        provided = call()
                    except PLUGIN_ERRORS as error:
                        self.record(source, f"{hook}: {describe_error(error)}")
                    else:
                        self._collect(role, hook, source, provided)

    def record(self, source: PluginSource, what: str) -> None:
        """Record and log why a plug-in, or a part of it, cannot be used."""
        what = " ".join(what.split())
        self._problems.append(PluginProblem(source=source, what=what))
        get_logger().warning("plug-in cannot be used", plugin=str(source), problem=what)

    def _collect(
        self, role: type[Descriptor], hook: str, source: PluginSource, provided: object
    ) -> None:
        if not isinstance(provided, (list, tuple)):
            self.record(source, f"{hook} returned {provided!r} instead of a list")
            return
        for each in provided:
            if isinstance(each, role):
                self._registry.add(role, each, source)
            else:
                self.record(source, f"{hook} returned {each!r} instead of a {role.__name__}")

    def _hint(self) -> str:
        broken = len({problem.source for problem in self._problems})
        return f"; {broken} broken, see `schedhook plugins`" if broken else ""


def _log_failure(hook: str, source: PluginSource, error: BaseException) -> None:
    log, plugin = get_logger(), str(source)
    log.warning("observer failed", plugin=plugin, hook=hook, error=describe_error(error))
    log.debug("traceback of the observer", plugin=plugin, hook=hook, exc_info=error)
