"""What `schedhook relocate` and `schedhook plan` do with their options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from schedhook.cli.loading import load
from schedhook.cli.options.common import common_options, grouped, json_option
from schedhook.cli.options.moving import moving_arguments, moving_options
from schedhook.cli.options.node_map import node_map_options
from schedhook.cli.options.pictures import picture_options
from schedhook.cli.options.processes import check_processes, process_options
from schedhook.cli.output.files import Pictures
from schedhook.cli.running import carry_out, print_report
from schedhook.roles.request import Request
from schedhook.values.errors import UsageError
from schedhook.values.nodemap import parse_map
from schedhook.values.report_json import report_to_dict

relocation_options = grouped(
    process_options, node_map_options, moving_options, picture_options, json_option, common_options
)


def run_relocation(
    *,
    config_path: Path | None,
    root: Path,
    svg: Path | None,
    html: Path | None,
    as_json: bool,
    **options: Any,
) -> int:
    """Relocate as the `relocation_options` and `dry_run` say, and return the exit status."""
    pictures = Pictures(svg=svg, html=html, root=root)
    request = make_request(**options)
    config, plugins = load(config_path)
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
    node_map: str | None,
    leftovers: str,
    kinds: str | None,
    shared: str | None,
    bandwidth: float | None,
    reserve: int | None,
    **same: Any,
) -> Request:
    """Return what the options ask for; `same` are those that a Request names alike.

    Raise UsageError if they contradict each other.
    """
    check_processes(pids, cgroup, job)
    if node_map is not None and (same["sources"] is not None or same["destinations"] is not None):
        raise UsageError("--map names both sides of each pair: leave out --from and --to")
    return Request(
        pids=pids,
        cgroup=cgroup,
        job=job,
        node_map=parse_map(node_map) if node_map is not None else None,
        sweep_leftovers=leftovers == "sweep",
        **moving_arguments(kinds, shared, bandwidth, reserve),
        **same,
    )
