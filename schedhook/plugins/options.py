"""Check that each [plugins.options.NAME] of the configuration belongs to something that exists."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from schedhook.plugins.manager import Plugins
from schedhook.plugins.sources import BUILT_IN, PluginSource
from schedhook.values.errors import ConfigError
from schedhook.values.log import get_logger
from schedhook.values.text import suggest

if TYPE_CHECKING:
    from schedhook.values.config import Config


def unknown_options(config: Config, plugins: Plugins) -> list[str]:
    """Return each NAME in [plugins.options.NAME] that no loaded plug-in has or provides."""
    if not config.plugins.options:
        return []
    known = _known(plugins)
    return [name for name in config.plugins.options if name not in known]


def check_options(
    config: Config, plugins: Plugins, unknown: Collection[str], left_out: Collection[PluginSource]
) -> None:
    """Raise ConfigError for an unknown name of options; the message says which names exist.

    A plug-in in `left_out` is disabled or broken. Options under its own name or its package's
    are accepted. Since the names that it would provide are unknown, any other name is then only
    logged as a warning.
    """
    accepted = set[str]().union(*(source.names for source in left_out))
    for name in unknown:
        if name in accepted:
            continue
        where = f"{config.source or 'configuration'}: plugins.options.{name}"
        known = sorted(_known(plugins))
        problem = suggest(
            "no plug-in has or provides this name", name, known, f"there are: {', '.join(known)}"
        )
        if not left_out:
            raise ConfigError(f"{where}: {problem}")
        sources = ", ".join(sorted(map(str, left_out)))
        get_logger().warning("options not used", key=where, problem=problem, not_loaded=sources)


def check_keys(config: Config, plugins: Plugins) -> None:
    """Raise ConfigError for an option that nothing reads: of what ships, or that lists its own."""
    for name, table in config.plugins.options.items():
        allowed = _options_of(name, plugins)
        for key in table:
            if allowed is not None and key not in allowed:
                where = f"{config.source or 'configuration'}: plugins.options.{name}.{key}"
                has = f"its options are {', '.join(sorted(allowed))}" if allowed else "it has none"
                raise ConfigError(f"{where}: {name} has no such option; {has}")


def _options_of(name: str, plugins: Plugins) -> frozenset[str] | None:
    """Return the options under this name, None if only the plug-in knows them."""
    those = [each for each in plugins.listing() if each.name == name]
    if any(each.role == "strategy" for each in those):
        return plugins.strategy(name).options
    ships = bool(those) and all(each.source.package == BUILT_IN for each in those)
    return frozenset() if ships else None


def _known(plugins: Plugins) -> set[str]:
    listing = plugins.listing()
    installed = (each.source for each in listing if each.source.package != BUILT_IN)
    return {each.name for each in listing}.union(*(source.names for source in installed))
