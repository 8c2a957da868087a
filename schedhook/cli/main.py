"""The command's entry: finds the subcommand, turns errors into one line and an exit status."""

from __future__ import annotations

import io
import signal
import sys
from importlib import import_module
from typing import NoReturn

import click

from schedhook import __version__
from schedhook.values.errors import SchedhookError

COMMANDS = {
    "relocate": "move the memory of running processes to other NUMA nodes",
    "plan": "what relocate would do; nothing moves",
    "profile": "move pages to the nodes that use them, by a profiler's log",
    "show": "where memory lies, and how much of it is off-node",
    "plugins": "what is installed, and from where",
    "history": "the journal: jobs, placements, events and reports",
    "event": "what a scheduler's hooks call",
    "watch": "notice relocations on this host and handle them",
    "agent": "watch, and serve the schedulers' hooks on a local socket",
    "metrics": "counters and where memory lies now, for Prometheus",
    "doctor": "what this host and set-up allow, with remedies",
}
"""Summaries stand here so that a listing imports nothing."""


class _LazyGroup(click.Group):
    def list_commands(self, _ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, _ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command = import_module(f"schedhook.cli.commands.{name}").command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.command(
    cls=_LazyGroup, no_args_is_help=False, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(__version__, prog_name="schedhook")
def main() -> None:
    """Make a job's memory follow the job between NUMA nodes."""


def run() -> None:
    """The console script. Exit status: 0 done, 3 partial, 4 refused, 2 wrong usage, 1 failed."""
    run_command(main, "schedhook")


def run_command(command: click.Command, name: str) -> NoReturn:
    """Run a command of that name to its exit status; an error is one line on standard error."""
    # Where a daemon starts us with it ignored, every program that we run seems to end well.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if isinstance(sys.stdout, io.TextIOWrapper):  # what the terminal cannot show is no failure
        sys.stdout.reconfigure(errors="replace")
    try:
        status = command.main(prog_name=name, standalone_mode=False)
    except SchedhookError as error:
        complain(f"{name}: {error}")
        status = error.exit_status
    except click.exceptions.Exit as leave:
        status = leave.exit_code
    except click.Abort:
        click.echo(f"{name}: interrupted; what had moved stays where it is", err=True)
        status = 1
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        hint = f" (see `{context.command_path} --help`)" if context else ""
        click.echo(f"{name}: {error.format_message()}{hint}", err=True)
        status = 2
    except BrokenPipeError:
        sys.stderr.close()
        status = 1
    sys.exit(status or 0)


def complain(line: str) -> None:
    """One line on standard error. It may name what users have named: a cgroup, say."""
    from schedhook.values.text import printable

    click.echo(printable(line), err=True)


if __name__ == "__main__":
    run()
