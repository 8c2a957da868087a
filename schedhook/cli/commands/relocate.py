"""`schedhook relocate`: move the memory of running processes."""

from __future__ import annotations

from typing import Any

import click

from schedhook.cli.relocation import RelocationCommand, relocation_options, run_relocation

_EXAMPLES = """\b
Examples:
  schedhook relocate --pid 4711 --from 0 --to 2
  schedhook relocate --job 7 --map 0:1,1:0 --gentle
  schedhook relocate --cgroup /batch/job_7 --cpus 8-15
  schedhook relocate --job 7 --home
"""
"""click does not wrap what follows a backspace."""


@click.command("relocate", cls=RelocationCommand, epilog=_EXAMPLES)
@click.option(
    "--dry-run", is_flag=True, help="Only show what would move, as `schedhook plan` does."
)
@relocation_options
def command(**options: Any) -> int:
    """Move the memory of running processes from old to new NUMA nodes.

    The result is verified by reading residency again; the report gives the reason for each page
    that stayed. Exit status: 0 complete or nothing to do, 3 partial, 4 refused, 2 wrong usage,
    1 failed.
    """
    return run_relocation(**options)
