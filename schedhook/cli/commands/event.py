"""`schedhook event`: what a scheduler's hook calls."""

from __future__ import annotations

import os
from pathlib import Path

import click

from schedhook.hook import delivery
from schedhook.values.config import PATH_VARIABLE, Config, load_config
from schedhook.values.errors import ConfigError


@click.command("event")
@click.argument("scheduler")
@click.argument("point")
@click.option("--wait", is_flag=True, help="Wait until it is handled; here, where no agent runs.")
@click.option("--strict", is_flag=True, help="Exit status 1 where it was not taken.")
@click.option("--timeout", type=click.FloatRange(min=0.1), help="Leave after this many seconds.")
@click.option("--socket", help="The agent's socket.")
@click.option("--spool", help="Where to leave the event while no agent runs.")
@click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Configuration file, /etc/schedhook/config.toml by default.",
)
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
    """Tell of POINT, a hook of SCHEDULER: to the agent, else to the spool.

    The event is read from the environment (Slurm) or from standard input (the others). The exit
    status is 0 whatever happens, unless --strict. Hooks that run for every job should call
    schedhook/hook/run.py, which does the same and starts in a fraction of the time.
    """
    if config_path is not None:
        os.environ[PATH_VARIABLE] = str(config_path)
    try:
        config = load_config()
    except ConfigError as error:
        click.echo(f"schedhook: {error}; going on without it", err=True)
        config = Config()
    arguments = [scheduler, point]
    arguments += ["--socket", socket or config.agent.socket]
    arguments += ["--spool", spool or config.agent.spool]
    arguments += ["--timeout", str(timeout)] if timeout is not None else []
    arguments += ["--wait"] if wait else []
    arguments += ["--strict"] if strict else []
    return delivery.main(arguments)
