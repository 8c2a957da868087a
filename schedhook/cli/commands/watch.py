"""`schedhook watch`: finds out what happens to jobs, without any hook."""

from __future__ import annotations

from pathlib import Path

import click

from schedhook.agent.service import serve
from schedhook.cli.options import common_options, load


@click.command("watch")
@common_options
def command(config_path: Path | None, root: Path) -> int:
    """Watch this host's jobs, and do as [actions] says when their placement changes.

    The same as `schedhook agent`, without a socket for hooks. Runs until it gets SIGTERM.
    """
    config, plugins = load(config_path)
    serve(config, plugins, path=None, spool=None, watch=True, root=root)
    return 0
