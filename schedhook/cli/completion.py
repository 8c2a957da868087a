"""What shells offer as completions of names, jobs and sets."""

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
    """Return a completer of the names that plug-ins provide for a role."""

    def complete(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
        plugins = _plugins(ctx)
        return _starting_with(incomplete, plugins.names(role) if plugins else ())

    return complete


def complete_jobs(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the jobs on this host that begin with `incomplete`."""
    from schedhook.plugins.descriptors import SchedulerPlugin

    jobs: list[str] = []
    plugins = _plugins(ctx)
    if plugins is None:
        return []
    for name in plugins.names(SchedulerPlugin):
        try:
            adapter = plugins.adapter(name, _root(ctx))
            described = ((job, adapter.describe(job)) for job in adapter.jobs())
            jobs += [about.alias if about and about.alias else job for job, about in described]
        except PLUGIN_ERRORS:  # an adapter that fails offers nothing
            continue
    return _starting_with(incomplete, jobs)


def complete_set(numbers: Iterable[int], incomplete: str) -> list[CompletionItem]:
    """Return the completions of the last number of a list such as `0-3,8`."""
    matched = re.match(r"(?:.*[,!-])?", incomplete)
    before = matched[0] if matched else ""
    return _starting_with(incomplete, (f"{before}{number}" for number in numbers))


def _starting_with(incomplete: str, offers: Iterable[str]) -> list[CompletionItem]:
    return [CompletionItem(each) for each in offers if each.startswith(incomplete)]


def _root(ctx: click.Context) -> Path:
    return Path(ctx.params.get("root") or "/")


def _plugins(ctx: click.Context) -> Plugins | None:
    """Return the plug-ins; None if the configuration is broken, since shells show no errors."""
    from schedhook.plugins.loading import load_plugins
    from schedhook.values.config import load_config
    from schedhook.values.errors import SchedhookError
    from schedhook.values.log import configure

    configure("console", "error")
    try:
        return load_plugins(load_config(ctx.params.get("config_path")))
    except SchedhookError:
        return None
