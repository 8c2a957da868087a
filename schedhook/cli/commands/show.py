"""`schedhook show`: where memory lies, and whether that is where it is used."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from schedhook.cli.options import (
    NumberType,
    check_processes,
    common_options,
    json_option,
    load,
    process_options,
)
from schedhook.cli.output.files import Pictures, picture_options
from schedhook.host import cgroups
from schedhook.host.topology import Topology, read_topology
from schedhook.jobs.footprint import Footprint, read_footprint, read_jobs, tasks_of
from schedhook.jobs.lookup import find_tasks
from schedhook.plugins.manager import Plugins
from schedhook.values.errors import UsageError

_SECONDS = 2.0


@click.command("show")
@process_options
@click.option("--all", "everything", is_flag=True, help="Every job on this host, as without any.")
@click.option(
    "--watch",
    type=NumberType(min=0.2),
    is_flag=False,
    flag_value=_SECONDS,
    metavar="[SECONDS]",
    help=f"Look again every so many seconds, {_SECONDS:g} by default.",
)
@picture_options
@json_option
@common_options
def command(
    pids: tuple[int, ...],
    cgroup: str | None,
    job: str | None,
    scheduler: str | None,
    everything: bool,
    watch: float | None,
    svg: Path | None,
    html: Path | None,
    as_json: bool,
    config_path: Path | None,
    root: Path,
) -> int:
    """Where memory lies, and how much of it is off-node: not beside the processors that use it.

    For processes, a cgroup or a job; without any of these for every job on this host, the one
    with most off-node memory first. Memory that several processes map counts in each, and once in
    the total where it is a shared object (a shared-memory segment, a mapped file). Files that
    others map too are never off-node: relocate leaves them alone. With --watch --json, one object
    a line.
    """
    named = bool(pids) or cgroup is not None or job is not None
    if named and everything:
        raise UsageError("--all is every job: leave out --pid, --cgroup and --job")
    if named:
        check_processes(pids, cgroup, job)
    pictures = Pictures(svg=svg, html=html)
    if watch is not None and pictures:
        raise UsageError("--svg and --html take one picture: leave out --watch")
    _, plugins = load(config_path)

    def look() -> dict[str, Any]:
        topology = read_topology(root)
        if not named:
            jobs, problems = read_jobs(plugins, root, scheduler=scheduler)
            shown: dict[str, Any] = {"jobs": [each.to_dict() for each in jobs]}
            return shown | {"problems": problems, "nodes": _nodes(topology)}
        footprint = _footprint(pids, cgroup, job, scheduler, plugins, topology, root)
        return footprint.to_dict() | {"cgroup": cgroup, "nodes": _nodes(topology)}

    if watch is not None:
        _watch(look, watch, as_json)
        return 0
    shown = look()
    _print(shown, as_json)
    if pictures:
        from schedhook.cli.output import charts

        pictures.write(charts.of_jobs(shown) if not named else charts.of_footprint(shown))
    return 0


def _footprint(
    pids: tuple[int, ...],
    cgroup: str | None,
    job: str | None,
    scheduler: str | None,
    plugins: Plugins,
    topology: Topology,
    root: Path,
) -> Footprint:
    if job is not None:
        name, tasks = find_tasks(plugins, job, scheduler, root)
        return read_footprint(tasks, root, scheduler=name, job=job)
    if cgroup is not None:
        members = cgroups.pids(cgroups.resolve_cgroup(cgroup, root), root)
        return read_footprint(tasks_of(members, topology, root), root)
    tasks = tuple(tasks_of(dict.fromkeys(pids), topology, root, passing_over=()))
    return read_footprint(tasks, root, passing_over=())


def _nodes(topology: Topology) -> dict[str, dict[str, Any]]:
    return {
        str(number): {
            "cpus": str(node.cpus),
            "total": node.memory_total,
            "free": node.memory_free,
        }
        for number, node in topology.nodes.items()
    }


def _print(shown: dict[str, Any], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(shown, ensure_ascii=False))
    else:
        from schedhook.cli.output.show import print_shown

        print_shown(shown)


def _watch(look: Callable[[], dict[str, Any]], seconds: float, as_json: bool) -> None:
    try:
        if as_json:
            while True:
                _print(look(), as_json=True)
                sys.stdout.flush()
                time.sleep(seconds)
        from schedhook.cli.output.show import watch

        watch(look, seconds)
    except KeyboardInterrupt:
        return  # the way to leave it
