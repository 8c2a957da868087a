"""Read what `schedhook show` shows: the object that its --json prints."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from schedhook.host import cgroups
from schedhook.host.topology import Topology, read_topology
from schedhook.jobs.footprint import Footprint, read_footprint, read_jobs, tasks_of
from schedhook.jobs.lookup import find_job
from schedhook.jobs.order import Order
from schedhook.jobs.summary import summarise
from schedhook.plugins.manager import Plugins


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Whose memory: one of `pids`, `cgroup` and `job`, or none of them for every job."""

    pids: tuple[int, ...] = ()
    cgroup: str | None = None
    job: str | None = None
    scheduler: str | None = None
    user: int | None = None
    """Only jobs of this user, if every job is meant."""

    @property
    def is_named(self) -> bool:
        """Whether it is not every job."""
        return bool(self.pids) or self.cgroup is not None or self.job is not None


def read_shown(
    target: Target, plugins: Plugins, root: Path, order: Order | None = None
) -> dict[str, Any]:
    """Return the footprint of the target, or of each job in `order`, with the host's nodes.

    `jobs_left_out` is how many jobs are not listed because `order` has its limit.
    """
    topology = read_topology(root)
    nodes = {"nodes": _nodes(topology)}
    if target.is_named:
        footprint = _read_footprint(target, plugins, topology, root)
        return footprint.to_dict() | {"cgroup": target.cgroup} | nodes
    order = order or Order()
    jobs, problems = read_jobs(plugins, root, scheduler=target.scheduler, user=target.user)
    listed = order.of(each.to_dict() for each in jobs)
    left_out = len(jobs) - len(listed)
    return {"jobs": listed, "jobs_left_out": left_out, "problems": problems} | nodes


def _read_footprint(target: Target, plugins: Plugins, topology: Topology, root: Path) -> Footprint:
    if target.job is not None:
        found = find_job(plugins, target.job, target.scheduler, root)
        name, summary = found.adapter.name, summarise(found.adapter, found.job)
        shown = read_footprint(found.tasks, root, scheduler=name, job=found.job)
        return replace(shown, summary=summary)
    if target.cgroup is not None:
        members = cgroups.pids(cgroups.resolve_cgroup(target.cgroup, root), root)
        return read_footprint(tasks_of(members, topology, root), root)
    tasks = tuple(tasks_of(dict.fromkeys(target.pids), topology, root, skip_errors=()))
    return read_footprint(tasks, root, skip_errors=())


def _nodes(topology: Topology) -> dict[str, dict[str, Any]]:
    """Return the entries of `nodes`; sizes in bytes."""
    return {
        str(number): {
            "cpus": str(node.cpus),
            "total": node.memory_total,
            "free": node.memory_free,
        }
        for number, node in topology.nodes.items()
    }
