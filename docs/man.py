"""Write manual pages and completions from the commands' own help: python docs/man.py DIRECTORY

DIRECTORY/man gets the pages, DIRECTORY/completions/SHELL the completions. `make dist` writes them
into contrib/, so that they are shipped.
"""

from __future__ import annotations

import shutil
import sys
from importlib import import_module
from pathlib import Path

import click
from click.shell_completion import get_completion_class
from click_man.core import write_man_pages

from schedhook import __version__
from schedhook.cli.main import COMMANDS, main
from schedhook.cli.setup.targets import COMPLETIONS
from schedhook_plugins.schedulers.slurm.command import command as job_migrate


def write(directory: Path) -> None:
    """Write all pages and completions, in place of those that are there."""
    for name in ("man", "completions"):
        shutil.rmtree(directory / name, ignore_errors=True)
    write_pages(directory / "man")
    write_completions(directory / "completions")


def write_pages(directory: Path) -> None:
    """Write a page for schedhook, for each of its commands, and for job-migrate."""
    directory.mkdir(parents=True)
    commands = {name: import_module(f"schedhook.cli.commands.{name}").command for name in COMMANDS}
    for name, summary in COMMANDS.items():
        commands[name].short_help = summary
    # The program's group imports a command only if it is called; a page needs all of them.
    whole = click.Group("schedhook", commands, params=main.params, help=main.help)
    whole.short_help = "make a job's memory follow the job between NUMA nodes"
    job_migrate.short_help = "schedhook: give a running Slurm job other processors, and its memory"
    for name, command in (("schedhook", whole), ("job-migrate", job_migrate)):
        write_man_pages(name, command, version=__version__, target_dir=str(directory))


def write_completions(directory: Path) -> None:
    """Write the completion of schedhook for each shell."""
    for shell, (name, _) in COMPLETIONS.items():
        found = get_completion_class(shell)
        assert found is not None
        text = found(main, {}, "schedhook", "_SCHEDHOOK_COMPLETE").source()
        (directory / shell).mkdir(parents=True)
        (directory / shell / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    write(Path(sys.argv[1]))
