"""`schedhook recover`: undo what relocations left that were killed."""

from __future__ import annotations

from typing import Any

import click

from schedhook.cli.options.common import common_options
from schedhook.control.undo import recover


@click.command("recover")
@common_options
def command(**_: Any) -> int:
    """Thaw and bind jobs as they were before relocations that were killed, helpers included.

    The agent, the hooks as root, and every other command do so too. A timer for hosts without an
    agent is in contrib/systemd.
    """
    click.echo(f"{recover()} relocations rolled back")
    return 0
