"""`schedhook relocate`, and `schedhook plan`, which is the same without the move."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import click

from schedhook.cli.commands.completion import names_of
from schedhook.cli.options import (
    CPUS,
    NAME,
    NODES,
    check_processes,
    common_options,
    grouped,
    json_option,
    load,
    moving_arguments,
    moving_options,
    process_options,
)
from schedhook.cli.output.files import Pictures, picture_options
from schedhook.cli.running import carry_out, print_report
from schedhook.plugins.descriptors import MapperPlugin, StrategyPlugin
from schedhook.roles.request import Request
from schedhook.values.errors import UsageError
from schedhook.values.nodemap import parse_map
from schedhook.values.sets import CpuSet, NodeSet

_map_options = grouped(
    click.option("--from", "sources", type=NODES, help="Old nodes, such as 0-1."),
    click.option("--to", "destinations", type=NODES, help="New nodes, such as 2-3."),
    click.option(
        "--map",
        "node_map",
        metavar="OLD:NEW,…",
        help="The map itself, such as 0:1,1:0, instead of --from and --to.",
    ),
    click.option(
        "--cpus",
        type=CPUS,
        help="Bind the processes to these processors first; their nodes are --to.",
    ),
    click.option(
        "--strategy",
        type=NAME,
        metavar="NAME",
        shell_complete=names_of(StrategyPlugin),
        help="How to move (`schedhook plugins`).",
    ),
    click.option(
        "--mapper",
        type=NAME,
        metavar="NAME",
        shell_complete=names_of(MapperPlugin),
        help="How old and new nodes are paired.",
    ),
    click.option(
        "--leftovers",
        type=click.Choice(["sweep", "report"]),
        default="sweep",
        show_default=True,
        help="What a whole-process call leaves behind: move it page by page, or report.",
    ),
)


def _run(
    *,
    pids: tuple[int, ...],
    cgroup: str | None,
    job: str | None,
    sources: NodeSet | None,
    destinations: NodeSet | None,
    node_map: str | None,
    cpus: CpuSet | None,
    kinds: str | None,
    shared: str | None,
    leftovers: str,
    bandwidth: float | None,
    reserve: int | None,
    config_path: Path | None,
    root: Path,
    svg: Path | None,
    html: Path | None,
    as_json: bool,
    **rest: Any,
) -> int:
    check_processes(pids, cgroup, job)
    if node_map is not None and (sources is not None or destinations is not None):
        raise UsageError("--map says it all: leave out --from and --to")
    pictures = Pictures(svg=svg, html=html)
    config, plugins = load(config_path)
    request = Request(
        pids=pids,
        cgroup=cgroup,
        job=job,
        node_map=parse_map(node_map) if node_map is not None else None,
        sources=sources,
        destinations=destinations,
        cpus=cpus,
        sweep_leftovers=leftovers == "sweep",
        **moving_arguments(kinds, shared, bandwidth, reserve),
        **rest,
    )
    report = carry_out(request, config, plugins, root, as_json)
    print_report(report, as_json)
    if pictures:
        from schedhook.cli.output import charts

        pictures.write(charts.of_report(report.to_dict()))
    return report.outcome.exit_status


@click.command("relocate")
@process_options
@_map_options
@moving_options
@click.option("--dry-run", is_flag=True, help="Only say what would move.")
@picture_options
@json_option
@common_options
def command(**arguments: Any) -> int:
    """Move the memory of running processes from old to new NUMA nodes.

    What moved is checked by reading residency again; each page that stayed has its reason in the
    report. Exit status: 0 complete or nothing to do, 3 partial, 4 refused, 2 wrong usage, 1 failed.
    """
    return _run(**arguments)


plan_command = click.Command(
    "plan",
    params=[each for each in command.params if each.name != "dry_run"],
    callback=partial(_run, dry_run=True),
    help="Say what relocate would move, and whether it would be refused. Nothing moves.",
)
