"""`schedhook relocate --all --home`: bring the off-node memory of every job on this host home."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from schedhook.cli.errors import complain
from schedhook.cli.running import carry_out, print_report, worst_status
from schedhook.jobs.choice import actions_for
from schedhook.jobs.lookup import find_jobs
from schedhook.plugins.manager import Plugins
from schedhook.relocation.nodes import check_named_nodes
from schedhook.relocation.settings import resolve_settings
from schedhook.roles.request import Request
from schedhook.values.config import Config
from schedhook.values.errors import PLUGIN_ERRORS
from schedhook.values.model import NodeMap, Outcome, Report
from schedhook.values.report_json import report_to_dict
from schedhook.values.text import describe_error


def bring_all_home(
    request: Request, config: Config, plugins: Plugins, root: Path, as_json: bool
) -> int:
    """Carry out the request for each job in turn, and return the worst exit status.

    A job that fails does not keep the others from being tried, and one that is off is left alone:
    only a command that names it moves its memory. With `as_json` print one object:
    `jobs`, the report of each, and `problems`, a line for each job or scheduler that gave none.
    Raise UsageError or PluginError, before anything moves, if the request cannot be understood.
    """
    _check(request, config, plugins, root)
    reports: list[Report] = []
    jobs, problems = find_jobs(plugins, request.scheduler, root)
    for name, job in jobs:
        try:
            its = replace(request, scheduler=name, job=job)
            reports.append(
                _leave_alone(its, config, plugins, root)
                or carry_out(its, config, plugins, root, as_json)
            )
        except PLUGIN_ERRORS as error:  # it may have ended by now
            problems.append(f"{name} {job}: {describe_error(error)}")
        else:
            if not as_json:
                _print(name, reports[-1])
    if as_json:
        click.echo(json.dumps(_to_dict(reports, problems), ensure_ascii=False))
    for problem in problems:
        complain(f"schedhook: {problem}")
    if not reports and not problems and not as_json:
        click.echo("no job on this host")
    if not as_json and any(each.outcome is Outcome.REFUSED for each in reports):
        click.echo("if jobs are on each other's nodes, let them trade places: schedhook rebalance")
    return worst_status(reports, problems)


def _leave_alone(request: Request, config: Config, plugins: Plugins, root: Path) -> Report | None:
    """Return the report of a job that is off; None for any other."""
    assert request.scheduler is not None
    assert request.job is not None
    adapter = plugins.adapter(request.scheduler, root)
    actions = actions_for(adapter, request.job, config.actions)
    if not actions.is_off:
        return None
    note = f"left alone, {actions.reason}; relocate --job {request.job} --home brings it home"
    return Report(
        outcome=Outcome.NOTHING_TO_DO,
        strategy=request.strategy or config.relocation.strategy,
        backend=request.backend or config.relocation.backend,
        node_map=NodeMap(pairs={}),
        job=request.job,
        notes=(note,),
    )


def _check(request: Request, config: Config, plugins: Plugins, root: Path) -> None:
    """Raise UsageError or PluginError for what would be wrong with every job's request."""
    settings = resolve_settings(request, config, plugins)
    if request.mapper is not None:
        plugins.mapper(request.mapper)
    check_named_nodes(request, plugins.backend(settings.backend).create(root).topology())


def _print(scheduler: str, report: Report) -> None:
    click.echo(f"{scheduler} {report.job}:")
    print_report(report, as_json=False)
    click.echo()


def _to_dict(reports: list[Report], problems: list[str]) -> dict[str, Any]:
    return {"jobs": [report_to_dict(report) for report in reports], "problems": problems}
