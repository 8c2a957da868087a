"""`schedhook agent`: watches jobs and serves the hooks."""

from __future__ import annotations

from pathlib import Path

import click

from schedhook.agent.service import serve
from schedhook.cli.options import PathType, common_options, load


@click.command("agent")
@click.option("--socket", type=PathType(), help="Serve this socket.")
@click.option("--spool", type=PathType(), help="Take events from this directory.")
@click.option("--no-watch", is_flag=True, help="Only serve the hooks.")
@common_options
def command(
    socket: Path | None,
    spool: Path | None,
    no_watch: bool,
    config_path: Path | None,
    root: Path,
) -> int:
    """Take events from schedulers' hooks, find out what no hook tells, and let memory follow.

    Runs until it gets SIGTERM. One for each host, as root; see contrib/systemd.
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
