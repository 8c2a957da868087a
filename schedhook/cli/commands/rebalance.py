"""`schedhook rebalance`: bring the off-node memory of all jobs of this host home together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from schedhook.cli.errors import complain
from schedhook.cli.left_alone import find_left_alone
from schedhook.cli.loading import load
from schedhook.cli.options.common import common_options, json_option
from schedhook.cli.options.moving import moving_arguments, pace_options, reserve_option
from schedhook.cli.options.processes import scheduler_option
from schedhook.cli.running import progress_shown, record_real, worst_status
from schedhook.jobs.lookup import find_jobs
from schedhook.relocation.rebalance import rebalance
from schedhook.relocation.rebalance_json import rebalance_to_dict
from schedhook.roles.request import Request

_EXAMPLES = """\b
Examples:
  schedhook rebalance --dry-run
  schedhook rebalance --gentle --bandwidth 500
"""


@click.command("rebalance", epilog=_EXAMPLES)
@click.option("--dry-run", is_flag=True, help="Only show what would move, and in which order.")
@scheduler_option
@pace_options
@reserve_option
@json_option
@common_options
def command(
    *,
    config_path: Path | None,
    root: Path,
    as_json: bool,
    scheduler: str | None,
    kinds: str | None,
    shared: str | None,
    bandwidth: float | None,
    reserve: int | None,
    **same: Any,
) -> int:
    """Bring the off-node memory of all jobs on this host home together.

    Unlike relocate --all --home, jobs can trade places whose nodes are too full to take each
    other's memory: it moves in rotation through whatever room there is, chunk by chunk. Jobs that
    cannot go home are refused, each with the reason, and the others go. Jobs that are parked, or
    off, are left alone.
    While memory passes through a node, a quarter of the reserve is kept free there; in the end all
    of it is, or the node is as full as before.

    Exit status: 0 complete or nothing to do, 3 partial, 4 a job was refused, 2 wrong usage,
    1 failed.
    """
    config, plugins = load(config_path)
    jobs, problems = find_jobs(plugins, scheduler, root)
    left_alone = find_left_alone(jobs, config, plugins, root)
    requests = [
        Request(
            scheduler=name, job=job, **moving_arguments(kinds, shared, bandwidth, reserve), **same
        )
        for name, job in jobs
        if (name, job) not in left_alone
    ]
    with progress_shown(as_json) as progress:
        result = rebalance(requests, config, plugins, root=root, progress=progress)
    for request, report in zip(requests, result.reports, strict=True):
        record_real(report, request, config, root)
    shown = rebalance_to_dict(result, [each.scheduler for each in requests], left_alone)
    shown["problems"] = problems
    if as_json:
        click.echo(json.dumps(shown, ensure_ascii=False))
    else:
        from schedhook.cli.output.rebalance import print_rebalance

        print_rebalance(shown)
    for problem in problems:
        complain(f"schedhook: {problem}")
    return worst_status(result.reports, problems)
