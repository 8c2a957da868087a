"""Options of `relocate` and `plan`: from which nodes to which, and by what strategy."""

from __future__ import annotations

import click

from schedhook.cli.completion import names_of
from schedhook.cli.options.common import configured, grouped
from schedhook.cli.options.sets import ANY_NODES, CPUS, NODES
from schedhook.cli.options.types import NAME
from schedhook.plugins.descriptors import MapperPlugin, StrategyPlugin
from schedhook.values.config import RelocationSection
from schedhook.values.model import Policies

_DEFAULTS = RelocationSection()

node_map_options = grouped(
    click.option(
        "--from",
        "sources",
        type=ANY_NODES,
        help="Old nodes, such as 0-1; '!2' (quoted, for the shell) means all but node 2; default:"
        " all but those of --to. Memory of GPUs stays unless its node is named. With --job and"
        " neither --from nor --to: from where the journal has the job to where it is now.",
    ),
    click.option("--to", "destinations", type=NODES, help="New nodes, such as 2-3."),
    click.option(
        "--map",
        "node_map",
        metavar="OLD:NEW,…",
        help="Pairs of old and new node, such as 0:1,1:0, instead of --from and --to.",
    ),
    click.option(
        "--home",
        is_flag=True,
        help="Bring off-node memory to the nodes of the processors that use it, process by process,"
        " instead of --to; with --from, only from there.",
    ),
    click.option(
        "--cpus",
        type=CPUS,
        help="Bind the processes to these processors first, such as 8-15; their nodes are the"
        " default of --to.",
    ),
    click.option(
        "--strategy",
        type=NAME,
        metavar="NAME",
        shell_complete=names_of(StrategyPlugin),
        help="How pages are moved; `schedhook plugins` lists the strategies."
        f" {configured(_DEFAULTS.strategy)}",
    ),
    click.option(
        "--profile",
        metavar="LOG",
        help="A profiler's log of the processes' accesses, such as `schedhook profile` reads, for"
        " strategies that use one: hot-first.",
    ),
    click.option(
        "--mapper",
        type=NAME,
        metavar="NAME",
        shell_complete=names_of(MapperPlugin),
        help="How old and new nodes are paired; `schedhook plugins` lists the mappers."
        f" {configured(_DEFAULTS.mapper)}",
    ),
    click.option(
        "--policies",
        type=click.Choice([each.value for each in Policies]),
        help="Memory policies that name old nodes (numactl, Slurm's --mem-bind, mbind): leave, so"
        " that later memory comes from there again; or rebind them to the new nodes, by ptrace in"
        f" threads that are stopped for it. {configured(_DEFAULTS.policies.value)}",
    ),
    click.option(
        "--leftovers",
        type=click.Choice(["sweep", "report"]),
        default="sweep",
        show_default=True,
        help="What a whole-process call left behind: move it page by page (sweep), or only report"
        " it.",
    ),
)
