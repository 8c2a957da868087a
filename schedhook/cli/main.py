"""The program's entry: its subcommands, each imported only if it is called."""

from __future__ import annotations

from importlib import import_module

import click

from schedhook import __version__
from schedhook.cli.errors import complain, run_command
from schedhook.control.undo import recover
from schedhook.values.text import suggest

COMMANDS = {
    "relocate": "move the memory of running processes to other NUMA nodes",
    "plan": "show what relocate would do; nothing moves",
    "rebalance": "bring the memory of all jobs home together: they trade places",
    "profile": "move pages to the nodes that use them, by a profiler's log",
    "show": "show where memory is, and how much of it is off-node",
    "report": "write a page of this host: jobs, nodes, and what was moved",
    "plugins": "list what is installed, and from which package",
    "history": "show the journal: jobs, placements, events and reports",
    "event": "deliver a scheduler's event; the schedulers' hooks call it",
    "watch": "detect relocations on this host and handle them",
    "agent": "watch, and serve the schedulers' hooks on a local socket",
    "metrics": "print counters and where memory is now, for Prometheus",
    "setup": "place shipped files for a scheduler, systemd, metrics, shells",
    "recover": "undo what relocations left that were killed",
    "doctor": "check what this host and its set-up allow, with remedies",
}
"""The summary of each command; it stands here so that a listing imports no command."""


class _LazyGroup(click.Group):
    def list_commands(self, _ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, _ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command = import_module(f"schedhook.cli.commands.{name}").command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if not (name in COMMANDS or name.startswith("-") or ctx.resilient_parsing):
            ctx.fail(suggest(f"no command is called {name[:40]!r}", name, COMMANDS))
        return super().resolve_command(ctx, args)

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.command(
    cls=_LazyGroup,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, prog_name="schedhook")
@click.pass_context
def main(context: click.Context) -> None:
    """Make a job's memory follow the job between NUMA nodes."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())
    elif context.invoked_subcommand != "recover" and recover():
        complain(
            "schedhook: an earlier relocation was killed; its changes were rolled back,"
            " but memory that had moved stays where it is (see `schedhook show`)"
        )


def run() -> None:
    """Run the console script `schedhook`."""
    run_command(main, "schedhook")


if __name__ == "__main__":
    run()
