"""What the shell offers where a name or a set is to be written."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from schedhook.plugins.descriptors import Descriptor
from schedhook.plugins.manager import Plugins
from schedhook.values.errors import PLUGIN_ERRORS

Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def names_of(role: type[Descriptor]) -> Complete:
    """The names that plug-ins provide for a role."""

    def complete(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
        plugins = _plugins(ctx)
        return _begin_with(incomplete, plugins.names(role) if plugins else ())

    return complete


def complete_jobs(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The jobs on this host."""
    from schedhook.plugins.descriptors import SchedulerPlugin

    jobs: list[str] = []
    plugins = _plugins(ctx)
    if plugins is None:
        return []
    for name in plugins.names(SchedulerPlugin):
        try:
            jobs += plugins.scheduler(name).create(_root(ctx)).jobs()
        except PLUGIN_ERRORS:  # an offer less; adapters are plug-ins
            continue
    return _begin_with(incomplete, jobs)


def complete_set(numbers: Iterable[int], incomplete: str) -> list[CompletionItem]:
    """The next number of a list such as `0-3,8`."""
    begun = re.match(r"(?:.*[,-])?", incomplete)
    before = begun[0] if begun else ""
    return _begin_with(incomplete, (f"{before}{number}" for number in numbers))


def _begin_with(incomplete: str, offers: Iterable[str]) -> list[CompletionItem]:
    return [CompletionItem(each) for each in offers if each.startswith(incomplete)]


def _root(ctx: click.Context) -> Path:
    return Path(ctx.params.get("root") or "/")


def _plugins(ctx: click.Context) -> Plugins | None:
    """None where the configuration is broken: nobody wants to read that between two tabs."""
    from schedhook.plugins.loading import load_plugins
    from schedhook.values.config import load_config
    from schedhook.values.errors import SchedhookError
    from schedhook.values.log import configure

    configure("console", "error")
    try:
        return load_plugins(load_config(ctx.params.get("config_path")))
    except SchedhookError:
        return None
