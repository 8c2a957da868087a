"""`schedhook event`: what a scheduler's hook calls."""

from __future__ import annotations

import os
from pathlib import Path

import click

from schedhook.cli.errors import complain
from schedhook.cli.options.common import config_option, configured
from schedhook.cli.options.types import NumberType
from schedhook.hook import delivery
from schedhook.roles.scheduler import EventKind
from schedhook.values.config import (
    PATH_VARIABLE,
    AgentSection,
    Config,
    PluginsSection,
    load_config,
)
from schedhook.values.errors import PLUGIN_ERRORS, ConfigError, PluginError
from schedhook.values.model import Event

_DEFAULTS = AgentSection()


@click.command("event")
@click.argument("scheduler")
@click.argument("point")
@click.option(
    "--wait",
    is_flag=True,
    help="Wait until the event has been handled; if no agent runs, handle it here.",
)
@click.option(
    "--strict", is_flag=True, help="Exit with status 1 if the event was not delivered or handled."
)
@click.option(
    "--timeout",
    type=NumberType(min=0.1, max=86_400),
    metavar="SECONDS",
    help="Give up after so many seconds; default: 3, with --wait 25.",
)
@click.option(
    "--socket", metavar="FILE", help=f"The agent's socket. {configured(_DEFAULTS.socket)}"
)
@click.option(
    "--spool",
    metavar="DIR",
    help=f"Where to leave the event if no agent runs. {configured(_DEFAULTS.spool)}",
)
@config_option
def command(
    scheduler: str,
    point: str,
    wait: bool,
    strict: bool,
    timeout: float | None,
    socket: str | None,
    spool: str | None,
    config_path: Path | None,
) -> int:
    """Deliver the event of SCHEDULER's hook POINT to the agent; if none runs, to the spool.

    The event is read from the environment (Slurm) or from standard input (others). The exit status
    is 0 even if the delivery fails, unless --strict. Hooks that run for every job should call
    schedhook/hook/run.py, which does the same and starts in a fraction of the time.
    """
    if config_path is not None:
        os.environ[PATH_VARIABLE] = str(config_path)  # for the process that --wait may start
    config = _config_or_defaults()
    path = socket or config.agent.socket
    # An agent says itself what it does not know; the spool would keep it.
    if not os.path.lexists(path) and (unknown := _explain_unknown(scheduler, point, config)):
        complain(f"schedhook: {unknown}; the event was not delivered")
        return 1 if strict else 0
    arguments = [scheduler, point, "--socket", path]
    arguments += ["--spool", spool or config.agent.spool]
    arguments += ["--timeout", str(timeout)] if timeout is not None else []
    arguments += ["--wait"] if wait else []
    arguments += ["--strict"] if strict else []
    return delivery.main(arguments)


def _explain_unknown(scheduler: str, point: str, config: Config) -> str:
    """Return why no adapter can handle such events; empty if one can, or if it is not certain.

    Third parties' plug-ins are loaded only for a scheduler that does not ship.
    """
    from schedhook.plugins.descriptors import SchedulerPlugin
    from schedhook.plugins.loading import load_plugins

    try:
        plugins = load_plugins(Config(plugins=PluginsSection(third_party=False)))
        if scheduler not in plugins.names(SchedulerPlugin):
            plugins = load_plugins(config)
        adapter = plugins.adapter(scheduler, Path("/"))
    except PluginError as error:
        return "" if plugins.problems else str(error)
    except PLUGIN_ERRORS:
        return ""
    kind = adapter.kind_of(Event(scheduler=scheduler, point=point, job=""))
    if point in adapter.kinds or kind is not EventKind.IGNORE:
        return ""
    points = ", ".join(dict.fromkeys(each.replace("_", "-") for each in adapter.kinds))
    return f"{scheduler} has no hook {point[:40]!r}; its hooks are {points or 'not listed'}"


def _config_or_defaults() -> Config:
    try:
        return load_config()
    except ConfigError as error:
        complain(f"schedhook: {error}; using the defaults")
        return Config()
