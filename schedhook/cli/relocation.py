"""What `schedhook relocate` and `schedhook plan` do with their options."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import click

from schedhook.cli.all_home import bring_all_home
from schedhook.cli.loading import load
from schedhook.cli.options.common import common_options, grouped, json_option
from schedhook.cli.options.moving import moving_arguments, moving_options
from schedhook.cli.options.node_map import node_map_options
from schedhook.cli.options.pictures import picture_options
from schedhook.cli.options.processes import check_cgroup, check_processes, process_options
from schedhook.cli.options.sections import SectionedCommand
from schedhook.cli.options.sets import AllBut
from schedhook.cli.output.files import Pictures
from schedhook.cli.running import carry_out, print_report
from schedhook.host.topology import read_topology
from schedhook.jobs.lookup import find_job
from schedhook.plugins.manager import Plugins
from schedhook.roles.request import Request
from schedhook.values.errors import UsageError
from schedhook.values.model import Policies
from schedhook.values.nodemap import parse_map
from schedhook.values.report_json import report_to_dict
from schedhook.values.sets import NodeSet


class RelocationCommand(SectionedCommand):
    """A command with the `relocation_options`."""

    sections: ClassVar = {
        "pids": "Which processes",
        "sources": "From which nodes to which",
        "strategy": "What moves, and how",
        "threads": "Pace and limits",
        "svg": "Output",
        "config_path": "Configuration and host",
    }


relocation_options = grouped(
    process_options,
    click.option(
        "--all", "everything", is_flag=True, help="Every job on this host; only with --home."
    ),
    node_map_options,
    moving_options,
    picture_options,
    json_option,
    common_options,
)


def run_relocation(
    *,
    config_path: Path | None,
    root: Path,
    svg: Path | None,
    html: Path | None,
    as_json: bool,
    everything: bool,
    sources: NodeSet | AllBut | None,
    profile: str | None,
    **options: Any,
) -> int:
    """Relocate as the `relocation_options` and `dry_run` say, and return the exit status."""
    pictures = Pictures(svg=svg, html=html, root=root)
    if isinstance(sources, AllBut):
        sources = _all_but(sources.nodes, root)
    request = make_request(sources=sources, everything=everything, **options)
    check_cgroup(request.cgroup, root, force=request.force)
    config, plugins = load(config_path)
    if request.job is not None:
        found = find_job(plugins, request.job, request.scheduler, root)
        request = replace(request, job=found.job, scheduler=found.adapter.name)
    if profile is not None:
        request = _with_profile(request, profile, everything, plugins, root)
    if everything:
        if pictures:
            raise UsageError("--svg and --html show a single job: leave out --all")
        return bring_all_home(request, config, plugins, root, as_json)
    strategy = plugins.strategy(request.strategy or config.relocation.strategy)
    if _names_no_nodes(request) and strategy.choose_nodes is None:
        from schedhook.cli.journal_nodes import with_nodes_of_journal

        request = with_nodes_of_journal(request, config, plugins, root)
    report = carry_out(request, config, plugins, root, as_json)
    print_report(report, as_json)
    if pictures:
        from schedhook.cli.output.report_chart import chart_report

        pictures.write(chart_report(report_to_dict(report)))
    return report.outcome.exit_status


def make_request(
    *,
    pids: tuple[int, ...],
    cgroup: str | None,
    job: str | None,
    everything: bool,
    node_map: str | None,
    leftovers: str,
    policies: str | None,
    kinds: str | None,
    shared: str | None,
    bandwidth: float | None,
    reserve: int | None,
    **same: Any,
) -> Request:
    """Return what the options ask for; `same` are those that a Request names alike.

    Raise UsageError if they contradict each other.
    """
    if not everything:
        check_processes(pids, cgroup, job)
    elif pids or cgroup is not None or job is not None:
        raise UsageError("--all means every job: leave out --pid, --cgroup and --job")
    elif not same["home"]:
        raise UsageError("--all is for --home: other nodes are named for one job at a time")
    if node_map is not None and (same["sources"] is not None or same["destinations"] is not None):
        raise UsageError("--map names both sides of each pair: leave out --from and --to")
    return Request(
        pids=pids,
        cgroup=cgroup,
        job=job,
        node_map=parse_map(node_map) if node_map is not None else None,
        sweep_leftovers=leftovers == "sweep",
        policies=Policies(policies) if policies else None,
        **moving_arguments(kinds, shared, bandwidth, reserve),
        **same,
    )


def _with_profile(
    request: Request, log: str, everything: bool, plugins: Plugins, root: Path
) -> Request:
    """Return the request with the accesses that the log has of its processes."""
    from schedhook.cli.profiles import read_guidance

    if everything:
        raise UsageError("--profile is for the processes of one request: leave out --all")
    return replace(request, guidance=read_guidance(log, request, plugins, root))


def _names_no_nodes(request: Request) -> bool:
    """Return whether the request leaves it to the journal where a job's memory comes from."""
    named = (request.node_map, request.sources, request.destinations, request.cpus)
    return request.job is not None and not request.home and all(each is None for each in named)


def _all_but(nodes: NodeSet, root: Path) -> NodeSet:
    """Return the nodes that `!` and a set mean. Raise UsageError if one of these is not online."""
    topology = read_topology(root)
    for number in nodes:
        topology.node(number)
    return topology.elsewhere(nodes)
