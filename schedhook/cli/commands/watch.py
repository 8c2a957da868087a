"""`schedhook watch`: handle what happens to jobs, without any hook."""

from __future__ import annotations

from pathlib import Path

import click

from schedhook.agent.service import serve
from schedhook.cli.loading import load
from schedhook.cli.options.common import common_options


@click.command("watch")
@common_options
def command(config_path: Path | None, root: Path) -> int:
    """Watch this host's jobs, and act as [actions] says when their placement changes.

    The same as `schedhook agent`, without a socket for hooks. Runs until SIGTERM, SIGINT or SIGHUP.
    """
    config, plugins = load(config_path)
    serve(config, plugins, path=None, spool=None, watch=True, root=root)
    return 0
