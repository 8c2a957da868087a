"""Options of `relocate` and `plan`: from which nodes to which, and by what strategy."""

from __future__ import annotations

import click

from schedhook.cli.completion import names_of
from schedhook.cli.options.common import configured, grouped
from schedhook.cli.options.sets import CPUS, NODES
from schedhook.cli.options.types import NAME
from schedhook.plugins.descriptors import MapperPlugin, StrategyPlugin
from schedhook.values.config import RelocationSection

_DEFAULTS = RelocationSection()

node_map_options = grouped(
    click.option(
        "--from",
        "sources",
        type=NODES,
        help="Old nodes, such as 0-1; default: all but those of --to.",
    ),
    click.option("--to", "destinations", type=NODES, help="New nodes, such as 2-3."),
    click.option(
        "--map",
        "node_map",
        metavar="OLD:NEW,…",
        help="Pairs of old and new node, such as 0:1,1:0, instead of --from and --to.",
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
        "--mapper",
        type=NAME,
        metavar="NAME",
        shell_complete=names_of(MapperPlugin),
        help="How old and new nodes are paired; `schedhook plugins` lists the mappers."
        f" {configured(_DEFAULTS.mapper)}",
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
