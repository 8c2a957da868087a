"""Repatriation: off-node memory of a job is brought to the nodes of its processors."""

from __future__ import annotations

from collections.abc import Sequence

from schedhook.agent.job import Job, make_plan, move
from schedhook.agent.results import Step
from schedhook.roles.request import Request
from schedhook.roles.scheduler import Task
from schedhook.values.actions import Repatriate
from schedhook.values.model import Plan
from schedhook.values.sets import NodeSet
from schedhook.values.sizes import MIB

_LEAST_SHARE = 0.01
"""Of a task's memory: less on one node is not worth it."""


def repatriate(job: Job, tasks: Sequence[Task]) -> list[Step]:
    """Bring each task's memory home, as far as configured."""
    if job.actions.repatriate is Repatriate.NEVER:
        return []
    granted = job.adapter.granted(job.name)
    if job.actions.repatriate is not Repatriate.ALL:
        tasks = [task for task in tasks if task.name in granted]
    return _bring_home(job, tasks) if tasks else []


def gather(job: Job, tasks: Sequence[Task]) -> Step:
    """Bring home all memory of tasks of which it is not known on which nodes they were."""
    return move(job, tasks, Request(home=True))[1]


def _bring_home(job: Job, tasks: Sequence[Task]) -> list[Step]:
    # Planned first: to read where memory is costs much less than to move it.
    plan = make_plan(job, tasks, Request(home=True))
    if plan is None:
        return []
    strays = {task.name: its for task in tasks if (its := find_strays(job, task, plan))}
    found = tuple(
        f"{sum(strays[task.name].values()) / MIB:.1f} MiB of {task.name} outside of nodes"
        f" {task.placement.nodes}"
        for task in tasks
        if task.name in strays
    )
    if not found:
        return []
    if job.actions.repatriate is Repatriate.REPORT:
        return [Step(lines=found)]
    sources = NodeSet(node for its in strays.values() for node in its)
    astray = [task for task in tasks if task.name in strays]
    return [Step(lines=found), move(job, astray, Request(home=True, sources=sources))[1]]


def find_strays(job: Job, task: Task, plan: Plan) -> dict[int, int]:
    """Return the task's off-node bytes by node, as far as they are worth a move."""
    its = [process for process in plan.processes if process.pid in task.pids]
    resident = sum(size for process in its for size in process.residency.values())
    least = max(1, job.actions.repatriate_least_mb * MIB, int(_LEAST_SHARE * resident))
    total: dict[int, int] = {}
    for process in its:
        for (old, _), size in process.moves.items():
            total[old] = total.get(old, 0) + size
    return {node: size for node, size in total.items() if size >= least}
