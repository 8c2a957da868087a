"""Options of `profile`: how the log is read, and which pages move by it."""

from __future__ import annotations

import click

from schedhook.cli.completion import names_of
from schedhook.cli.options.common import grouped
from schedhook.cli.options.types import NAME, DurationType, NumberType, WholeType
from schedhook.migration.profiling.hints import Format
from schedhook.migration.profiling.recording import Source
from schedhook.plugins.descriptors import StrategyPlugin
from schedhook.roles.guidance import MIN_SAMPLES, MIN_SHARE
from schedhook.roles.profile import CAPACITY

profile_options = grouped(
    click.option(
        "--record",
        "seconds",
        type=DurationType(),
        metavar="TIME",
        help="Instead of reading LOG, record the processes by perf now for so long, such as 30s.",
    ),
    click.option(
        "--source",
        type=click.Choice([each.value for each in Source]),
        help="What --record samples: loads and stores by hardware, or page faults, which any"
        " machine has. [default: hardware if it works here]",
    ),
    click.option(
        "--format",
        "kind",
        type=click.Choice([each.value for each in Format]),
        default=Format.AUTO.value,
        show_default=True,
        help="The log's format; auto: recognised from the log's first lines.",
    ),
    click.option(
        "--min-samples",
        type=WholeType(min=1),
        metavar="N",
        default=MIN_SAMPLES,
        show_default=True,
        help="Only move a page if the log has at least so many accesses to it.",
    ),
    click.option(
        "--min-share",
        type=NumberType(min=0, max=1),
        metavar="SHARE",
        default=MIN_SHARE,
        show_default=True,
        help="Only move a page if one node makes at least this share of its accesses.",
    ),
    click.option(
        "--cache-hits", is_flag=True, help="Also count accesses that a processor's cache answered."
    ),
    click.option(
        "--most-counters",
        type=WholeType(min=1000),
        metavar="N",
        default=CAPACITY,
        show_default=True,
        help="Keep at most so many counters, one per page and node, 130 bytes each; the lowest are"
        " dropped.",
    ),
    click.option(
        "--strategy",
        type=NAME,
        metavar="NAME",
        default="profile-guided",
        show_default=True,
        shell_complete=names_of(StrategyPlugin),
        help="The strategy that decides which page moves; see `schedhook plugins`.",
    ),
    click.option("--move", is_flag=True, help="Move the pages; without it, only show the plan."),
)
