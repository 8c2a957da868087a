"""Read a job's page tables: what is off-node, what of it is bound there, what would fit at home."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from schedhook.agent.job import Job, make_plan
from schedhook.agent.keeper.decision import Situation
from schedhook.agent.repatriation import find_strays
from schedhook.host.topology import read_topology
from schedhook.jobs.footprint import ProcessFootprint, read_footprint
from schedhook.migration.policies import count_policies
from schedhook.roles.request import Request
from schedhook.roles.scheduler import Task
from schedhook.values.errors import NoPermissionError, ProcessGoneError
from schedhook.values.fit import explain_no_room
from schedhook.values.model import Plan
from schedhook.values.sets import NodeSet
from schedhook.values.sizes import MIB
from schedhook.values.text import join_some


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What was read of a job, and what of it could move."""

    situation: Situation
    tasks: tuple[Task, ...]
    """Those for whose off-node memory there is room, without processes whose memory is bound."""
    astray: tuple[Task, ...]
    """Those with off-node memory, room or not, the most first; without such processes."""
    sources: NodeSet
    """The nodes on which the memory of `tasks` is."""
    room: Mapping[int, int]
    """Bytes that the kernel can give on each of the job's own nodes."""


def read_job(job: Job, tasks: Sequence[Task]) -> Reading | None:
    """Return what the job's page tables show; None if none of its processes lives."""
    errors = (ProcessGoneError, NoPermissionError)
    footprint = read_footprint(tasks, job.root, skip_errors=errors)
    if not footprint.processes:
        return None
    bound = [each for each in footprint.processes if _is_bound(each, job)]
    free = _without(tasks, {each.pid for each in bound})
    plan = make_plan(job, free, Request(home=True)) if free else None  # none if all is at home
    strays = {task.name: its for task in free if plan and (its := find_strays(job, task, plan))}
    astray = sorted(
        (task for task in free if task.name in strays),
        key=lambda task: -sum(strays[task.name].values()),
    )
    fitting, why = _choose_fitting(plan, astray, strays) if plan else ([], "")
    situation = Situation(
        off_node=sum(size for its in strays.values() for size in its.values()),
        bound=sum(_bound_bytes(each) for each in bound),
        resident=sum(footprint.residency.values()),
        fitting=sum(size for task in fitting for size in strays[task.name].values()),
        remaining=job.adapter.time_left(job.name),
        age=_age(job),
        details=why if strays else _policies_of(bound),
    )
    homes = NodeSet(node for task in tasks for node in task.placement.nodes)
    nodes = read_topology(job.root).nodes
    return Reading(
        situation=situation,
        tasks=tuple(fitting),
        astray=tuple(astray),
        sources=NodeSet(node for task in fitting for node in strays[task.name]),
        room={node: nodes[node].room for node in homes if node in nodes},
    )


def _age(job: Job) -> float:
    """Return for how many seconds the job has run, as far as the journal knows."""
    run = job.records.run(job.scheduler, job.name)
    return max(0.0, time.time() - run.started) if run else 0.0


def _without(tasks: Iterable[Task], pids: set[int]) -> list[Task]:
    left = (replace(task, pids=tuple(p for p in task.pids if p not in pids)) for task in tasks)
    return [task for task in left if task.pids]


# -- memory policies -----------------------------------------------------------------------------


def _is_bound(process: ProcessFootprint, job: Job) -> bool:
    """Return whether policies bind so much of the process's off-node memory that it must stay.

    A relocation moves all off-node memory of a process, so it is all of it or nothing.
    """
    bound = _bound_bytes(process)
    off_node = sum(process.off_node.values())
    return bound > 0 and bound >= min(off_node / 2, job.actions.repatriate_least_mb * MIB)


def _bound_bytes(process: ProcessFootprint) -> int:
    governed = count_policies([process.off_node_policies]).bytes
    return min(governed, sum(process.off_node.values()))


def _policies_of(processes: Iterable[ProcessFootprint]) -> str:
    found = {str(policy) for each in processes for policy in each.off_node_policies.policies()}
    return join_some(sorted(found))


# -- room ----------------------------------------------------------------------------------------


def _choose_fitting(
    plan: Plan, tasks: Sequence[Task], strays: Mapping[str, Mapping[int, int]]
) -> tuple[list[Task], str]:
    """Return the tasks whose off-node memory fits together, and why the others' does not.

    All of them if they do: tasks may leave room to each other. Else the largest that fit.
    """
    why = explain_no_room([_only(plan, tasks, strays)])
    if why is None:
        return list(tasks), ""
    chosen: list[Task] = []
    for task in tasks:
        if explain_no_room([_only(plan, [*chosen, task], strays)]) is None:
            chosen.append(task)
    return chosen, why


def _only(plan: Plan, tasks: Iterable[Task], strays: Mapping[str, Mapping[int, int]]) -> Plan:
    """Return the part of a plan that moves the off-node memory of these tasks."""
    sources = {pid: strays[task.name].keys() for task in tasks for pid in task.pids}
    processes = tuple(
        replace(each, moves={way: n for way, n in each.moves.items() if way[0] in nodes})
        for each in plan.processes
        if (nodes := sources.get(each.pid))
    )
    part = replace(plan, processes=processes)
    # Pages of pools take no room; how many of them are in a part is not known.
    pooled = {way: min(size, part.moves.get(way, 0)) for way, size in plan.pooled.items()}
    return replace(part, pooled=pooled)
