"""Load the plug-ins: those that ship, and those of installed packages if configured."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

from schedhook.plugins.manager import ObserverFailed, Plugins
from schedhook.plugins.options import check_keys, check_options, unknown_options
from schedhook.plugins.registry import DISABLE_VARIABLE
from schedhook.plugins.sources import BUILT_IN, GROUP, PluginSource
from schedhook.roles.notes import JobNotes, LazyNotes
from schedhook.values.errors import PLUGIN_ERRORS
from schedhook.values.text import describe_error

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from schedhook.values.config import Config

TRACE_VARIABLE = "SCHEDHOOK_TRACE_PLUGINS"
"""Environment variable that has every call of a plug-in hook logged."""


def load_plugins(
    config: Config,
    *,
    extra: Iterable[object] = (),
    environ: Mapping[str, str] = os.environ,
    observer_failed: ObserverFailed | None = None,
) -> Plugins:
    """Load the plug-ins that ship, those of installed packages, and `extra`.

    `plugins.third_party` and `plugins.disabled` of the configuration and
    $SCHEDHOOK_DISABLE_PLUGINS (names separated by commas, or `all`) exclude installed packages.
    A plug-in that cannot be used is recorded and left out. Raise ConfigError if
    [plugins.options.NAME] names nothing that exists; see `check_options`.

    `observer_failed` is called for an observer that fails; by default the failure is logged.
    """
    trace = environ.get(TRACE_VARIABLE, "") not in ("", "0")
    plugins = Plugins(trace=trace, observer_failed=observer_failed)
    plugins.notes = lambda scheduler: LazyNotes(partial(_open_notes, config, scheduler))
    for module in import_module("schedhook_plugins").BUILT_IN:
        _add(plugins, PluginSource(name=module, package=BUILT_IN), partial(import_module, module))
    disabled = {name.strip() for name in environ.get(DISABLE_VARIABLE, "").split(",")} - {""}
    scans = config.plugins.third_party and "all" not in disabled
    excluded = disabled | set(config.plugins.disabled)
    found = _installed(plugins) if scans else []
    for source, entry in found:
        if not source.names & excluded:
            _add(plugins, source, partial(_import, entry))
    if scans and disabled:
        _warn_of_unknown(disabled - frozenset[str]().union(*(each.names for each, _ in found)))
    for plugin in extra:
        name = plugin.__name__ if isinstance(plugin, ModuleType | type) else type(plugin).__name__
        plugins.register(PluginSource(name=name, package="given"), plugin)
    if unknown := unknown_options(config, plugins):
        left_out = {problem.source for problem in plugins.problems}
        for source, _ in _installed(plugins):
            if not scans or source.names & excluded:
                left_out.add(source)
        check_options(config, plugins, unknown, left_out)
    check_keys(config, plugins)
    return plugins


def installed_names() -> frozenset[str]:
    """Return the names of installed packages with plug-ins, and of the plug-ins."""
    return frozenset[str]().union(*(source.names for source, _ in _installed(Plugins())))


def _warn_of_unknown(disabled: Iterable[str]) -> None:
    from schedhook.values.log import get_logger  # noqa: PLC0415 - only where something is wrong

    for name in disabled:
        hint = "it is no plug-in of an installed package; `schedhook plugins` lists these"
        get_logger().warning(f"${DISABLE_VARIABLE} has no effect", name=name, problem=hint)


def _open_notes(config: Config, scheduler: str) -> JobNotes:
    from schedhook.jobs.notes import open_notes  # noqa: PLC0415 - few commands need the journal
    from schedhook.journal.file import journal_path  # noqa: PLC0415

    return open_notes(journal_path(config), scheduler)


def _add(plugins: Plugins, source: PluginSource, load: Callable[[], object]) -> None:
    """Load one plug-in and register it; record what goes wrong."""
    try:
        plugin = load()
    except PLUGIN_ERRORS as error:
        plugins.record(source, describe_error(error))
    else:
        plugins.register(source, plugin)


def _installed(plugins: Plugins) -> list[tuple[PluginSource, EntryPoint]]:
    """Return the plug-ins of installed packages by name; none if the metadata is unreadable."""
    from importlib.metadata import entry_points  # noqa: PLC0415 - only where they are wanted

    found = []
    try:
        for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
            package = f"{entry.dist.name} {entry.dist.version}" if entry.dist else "unknown"
            found.append((PluginSource(name=entry.name, package=package), entry))
    except Exception as error:  # noqa: BLE001 - a third party's metadata can be broken in any way
        source = PluginSource(name=GROUP, package="entry points")
        plugins.record(source, f"package metadata cannot be read: {describe_error(error)}")
    return found


def _import(entry: EntryPoint) -> object:
    """Import a third party's plug-in; as root only if other users could not have changed it."""
    if os.geteuid() == 0:
        from schedhook.plugins.provenance import check_provenance  # noqa: PLC0415 - seldom needed

        check_provenance(entry)
    return entry.load()
