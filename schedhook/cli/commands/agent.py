"""`schedhook agent`: watch jobs and serve the hooks."""

from __future__ import annotations

from pathlib import Path

import click

from schedhook.agent.service import serve
from schedhook.cli.loading import load
from schedhook.cli.options.common import common_options, configured
from schedhook.cli.options.types import PathType
from schedhook.values.config import AgentSection

_DEFAULTS = AgentSection()


@click.command("agent")
@click.option(
    "--socket",
    type=PathType(),
    metavar="FILE",
    help=f"Serve the hooks on this socket. {configured(_DEFAULTS.socket)}",
)
@click.option(
    "--spool",
    type=PathType(),
    metavar="DIR",
    help=f"Take the events that hooks left in this directory. {configured(_DEFAULTS.spool)}",
)
@click.option("--no-watch", is_flag=True, help="Only serve the hooks; do not watch jobs.")
@common_options
def command(
    socket: Path | None, spool: Path | None, no_watch: bool, config_path: Path | None, root: Path
) -> int:
    """Handle the events of schedulers' hooks, watch jobs for other changes, and move their memory.

    Runs until SIGTERM, SIGINT or SIGHUP. Run one on each host, as root; see contrib/systemd.
    """
    config, plugins = load(config_path)
    serve(
        config,
        plugins,
        path=socket or Path(config.agent.socket),
        spool=spool or Path(config.agent.spool),
        watch=not no_watch,
        root=root,
    )
    return 0
