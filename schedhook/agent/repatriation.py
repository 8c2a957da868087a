"""Repatriation: memory that is outside of a job's nodes is brought to them."""

from __future__ import annotations

from collections.abc import Sequence

from schedhook.agent.job import MIB, Job, make_plan, move
from schedhook.agent.results import Step
from schedhook.host.topology import read_topology
from schedhook.roles.request import Request
from schedhook.roles.scheduler import Task
from schedhook.values.actions import Repatriate
from schedhook.values.sets import NodeSet

_LEAST_SHARE = 0.01
"""Of a task's memory: less on one node is not worth it."""


def repatriate(job: Job, tasks: Sequence[Task]) -> list[Step]:
    """Bring each task's memory home, as far as configured."""
    if job.actions.repatriate is Repatriate.NEVER:
        return []
    granted = job.adapter.granted(job.name)
    if job.actions.repatriate is not Repatriate.ALL:
        tasks = [task for task in tasks if task.name in granted]
    return [step for task in tasks for step in _bring_home(job, task)]


def _bring_home(job: Job, task: Task) -> list[Step]:
    request = _request(job, task)
    # Planned first: to read where memory is costs much less than to move it.
    plan = make_plan(job, [task], request) if request else None
    if plan is None or request is None:
        return []
    resident = sum(size for process in plan.processes for size in process.residency.values())
    least = max(1, job.actions.repatriate_least_mb * MIB, int(_LEAST_SHARE * resident))
    strays = {node: size for node, size in plan.bytes_by_source.items() if size >= least}
    if not strays:
        return []
    own = task.placement.nodes
    found = f"{sum(strays.values()) / MIB:.1f} MiB of {task.name} outside of nodes {own}"
    if job.actions.repatriate is Repatriate.REPORT:
        return [Step(lines=(found,))]
    sources = NodeSet(strays)
    back = Request(sources=sources, destinations=own, mapper="nearest")
    return [Step(lines=(found,)), move(job, [task], back)[1]]


def gather(job: Job, task: Task) -> Step:
    """Bring home all of a task's memory, of which it is not known on which nodes it was."""
    request = _request(job, task)
    return move(job, [task], request)[1] if request else Step()


def _request(job: Job, task: Task) -> Request | None:
    """Return what brings the memory of a task from all other nodes to its own, None if it has all.

    There is no relative place to keep, so the nearest of its nodes are the best.
    """
    own = task.placement.nodes
    away = read_topology(job.root).memory_nodes - own
    if not own or not away:
        return None
    return Request(sources=away, destinations=own, mapper="nearest")
