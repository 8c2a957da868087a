"""`schedhook show`: where memory lies."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from schedhook.cli.options import (
    check_processes,
    common_options,
    json_option,
    load,
    process_options,
)
from schedhook.errors import ProcessGoneError
from schedhook.host import cgroups
from schedhook.host.processes import read_areas, read_command, read_status
from schedhook.host.topology import read_topology
from schedhook.jobs import find_pids
from schedhook.model import Area, Kind, add_residency, by_name


@click.command("show")
@process_options
@json_option
@common_options
def command(
    pids: tuple[int, ...],
    cgroup: str | None,
    job: str | None,
    scheduler: str | None,
    as_json: bool,
    config_path: Path | None,
    root: Path,
) -> int:
    """Where the memory of processes lies: bytes per node, by process and kind.

    Memory that several processes map counts in each, and once in the total where it is a shared
    object (a shared-memory segment, a mapped file).
    """
    check_processes(pids, cgroup, job)
    _, plugins = load(config_path)
    if job is not None:
        pids = find_pids(plugins, job, scheduler, root)
    if cgroup is not None:
        pids = tuple(cgroups.pids(cgroups.resolve_cgroup(cgroup, root)))
    processes = []
    areas_of_all: list[Area] = []
    for pid in pids:
        try:
            areas = read_areas(pid, root)
            processes.append(_process(pid, areas, root))
        except ProcessGoneError:
            if cgroup is None and job is None:
                raise
            continue
        areas_of_all += areas
    topology = read_topology(root)
    result = {
        "processes": processes,
        "residency": by_name(_once(areas_of_all)),
        "nodes": {
            str(number): {
                "cpus": str(node.cpus),
                "total": node.memory_total,
                "free": node.memory_free,
            }
            for number, node in topology.nodes.items()
        },
    }
    if as_json:
        click.echo(json.dumps(result, ensure_ascii=False))
    else:
        from schedhook.cli.tables import print_residency

        print_residency(result)
    return 0


def _process(pid: int, areas: Sequence[Area], root: Path) -> dict[str, Any]:
    status = read_status(pid, root)
    total: dict[int, int] = {}
    kinds: dict[Kind, dict[int, int]] = {}
    for area in areas:
        add_residency(total, area.residency)
        add_residency(kinds.setdefault(area.kind, {}), area.residency)
    return {
        "pid": pid,
        "command": read_command(pid, root),
        "cpus": str(status.allowed_cpus),
        "mems": str(status.allowed_nodes),
        "residency": by_name(total),
        "kinds": {kind.value: by_name(size) for kind, size in sorted(kinds.items())},
    }


def _once(areas: Sequence[Area]) -> dict[int, int]:
    """Residency over all areas, each shared object as in the area that has most of it."""
    total: dict[int, int] = {}
    objects: dict[tuple[str, int, int], Area] = {}
    for area in areas:
        if area.object_key is None or not (area.is_shared or area.most_mappers > 1):
            add_residency(total, area.residency)
        elif area.object_key not in objects or objects[area.object_key].resident < area.resident:
            objects[area.object_key] = area
    for area in objects.values():
        add_residency(total, area.residency)
    return total
