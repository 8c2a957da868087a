"""Write the manual pages from the commands' own help: python docs/man.py DIRECTORY"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

import click
from click_man.core import write_man_pages

from schedhook import __version__
from schedhook.cli.main import COMMANDS, main
from schedhook_plugins.schedulers.slurm.command import command as job_migrate


def write(directory: Path) -> None:
    """Write a page for schedhook, for each of its commands, and for job-migrate."""
    directory.mkdir(parents=True, exist_ok=True)
    commands = {name: import_module(f"schedhook.cli.commands.{name}").command for name in COMMANDS}
    for name, summary in COMMANDS.items():
        commands[name].short_help = summary
    # The program's group imports a command only if it is called; a page needs all of them.
    whole = click.Group("schedhook", commands, params=main.params, help=main.help)
    whole.short_help = "make a job's memory follow the job between NUMA nodes"
    job_migrate.short_help = "give a running Slurm job other processors, and its memory with it"
    for name, command in (("schedhook", whole), ("job-migrate", job_migrate)):
        write_man_pages(name, command, version=__version__, target_dir=str(directory))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    write(Path(sys.argv[1]))
