"""`schedhook plan`: what `schedhook relocate` would do."""

from __future__ import annotations

from typing import Any

import click

from schedhook.cli.relocation import RelocationCommand, relocation_options, run_relocation


@click.command("plan", cls=RelocationCommand)
@relocation_options
def command(**options: Any) -> int:
    """Show what relocate would move, and whether it would be refused. Nothing moves.

    Exit status: 0 planned or nothing to do, 4 refused, 2 wrong usage, 1 failed.
    """
    return run_relocation(**options, dry_run=True)
