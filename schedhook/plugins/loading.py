"""Load the plug-ins: those that ship, and what the configuration lets in of other packages."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING

from schedhook.plugins.manager import (
    BUILT_IN,
    DISABLE_VARIABLE,
    TRACE_VARIABLE,
    Plugins,
    PluginSource,
)

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from schedhook.values.config import Config


def load_plugins(
    config: Config, *, extra: Iterable[object] = (), environ: Mapping[str, str] = os.environ
) -> Plugins:
    """The plug-ins that ship, those of installed packages where `config` and
    $SCHEDHOOK_DISABLE_PLUGINS (names separated by commas, or `all`) let them in, and `extra`."""
    plugins = Plugins(trace=environ.get(TRACE_VARIABLE, "") not in ("", "0"))
    for module in import_module("schedhook_plugins").BUILT_IN:
        provider = PluginSource(name=module, package=BUILT_IN)
        plugins.add(provider, partial(import_module, module))
    disabled = {name.strip() for name in environ.get(DISABLE_VARIABLE, "").split(",")}
    if config.plugins.third_party and "all" not in disabled:
        for provider, entry in plugins.scan():
            names = {entry.name, provider.package.partition(" ")[0]}
            if not names & (disabled | set(config.plugins.disabled)):
                plugins.add(provider, partial(_load, entry))
    for plugin in extra:
        name = getattr(plugin, "__name__", type(plugin).__name__)
        plugins.register(PluginSource(name=name, package="given"), plugin)
    return plugins


def _load(entry: EntryPoint) -> object:
    """Import a stranger's plug-in: as root only where nobody but root could have changed it."""
    if os.geteuid() == 0:
        from schedhook.plugins.provenance import check_provenance  # noqa: PLC0415 - only for strangers

        check_provenance(entry)
    return entry.load()
