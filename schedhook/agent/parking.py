"""Parking: a suspended job's memory moves to other nodes, and comes back before or as it resumes.

What is parked where is a note in the journal, written before anything moves: if this process is
killed, the next event of the job brings the memory back.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from schedhook.agent.job import SETTLED, Job, move, placements
from schedhook.agent.park_nodes import choose_by_room, choose_nodes
from schedhook.agent.results import Step
from schedhook.host.topology import read_topology
from schedhook.journal.columns import json_object
from schedhook.roles.request import Request
from schedhook.roles.scheduler import Task
from schedhook.values.actions import AnyNode
from schedhook.values.errors import RefusedError
from schedhook.values.model import NodeMap, Outcome
from schedhook.values.nodemap import vacate_first
from schedhook.values.sets import NodeSet

PARKED = "parked"
"""The key of the note."""
_ARRIVED = frozenset({Outcome.COMPLETE, Outcome.NOTHING_TO_DO})


@dataclass(frozen=True, slots=True, kw_only=True)
class ParkedTask:
    """One task's memory."""

    home: NodeSet
    """All nodes that it was on."""
    nodes: Mapping[int, int]
    """Node of home → node on which its memory is now, no two the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parked:
    """A job's memory, as far as it is parked."""

    tasks: Mapping[str, ParkedTask]
    widened: bool = False
    """A cpuset was widened for it, and must stay so until all of the memory is back."""

    @property
    def nodes(self) -> dict[int, int]:
        """Node of home → node on which memory is now; the last task's, if tasks differ."""
        return {old: at for task in self.tasks.values() for old, at in task.nodes.items()}


# -- the note ------------------------------------------------------------------------------------


def read_parked(job: Job) -> Parked | None:
    """Return what of the job is parked; None if nothing is."""
    notes = job.records.journal.notes
    return job.records.ask(lambda: notes.get(job.scheduler, job.name, PARKED, parse), None)


def write_parked(job: Job, parked: Parked | None) -> None:
    """Record what of the job is parked, in place of what was. Raise JournalError."""
    notes = job.records.journal.notes
    if parked is None or not parked.tasks:
        notes.delete(job.scheduler, job.name, PARKED)
        return
    tasks = {
        name: {"home": str(task.home), "nodes": {str(old): at for old, at in task.nodes.items()}}
        for name, task in parked.tasks.items()
    }
    text = json.dumps({"tasks": tasks, "widened": parked.widened})
    notes.set(job.scheduler, job.name, PARKED, text)


def parse(text: str) -> Parked:
    """Return the value of a note; raise ValueError for a text that `write_parked` never wrote."""
    note = json_object(text)
    try:
        tasks = {
            name: ParkedTask(
                home=NodeSet.parse(task["home"]),
                nodes={int(old): int(at) for old, at in task["nodes"].items()},
            )
            for name, task in note["tasks"].items()
        }
        return Parked(tasks=tasks, widened=bool(note["widened"]))
    except (KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"not a note of what is parked where: {error!r}") from error


# -- there ---------------------------------------------------------------------------------------


def park(job: Job, tasks: Sequence[Task]) -> list[Step]:
    """Move a suspended job's memory to the configured nodes."""
    if not job.actions.park:
        return []
    if job.event.data.get("seen_by") == "watch" and not job.adapter.suspended(job.name):
        return []  # frozen for the time of a relocation, perhaps one of ours
    wait = job.actions.park_after_s - job.suspended_s
    if wait > 0:
        return [
            Step(
                lines=(f"parked if suspended for {wait:.0f} s more",), waits=True, retry_after=wait
            )
        ]
    steps = []
    parked = Parked(tasks={})
    for task in tasks:
        home, refused = _home(job, task), NodeSet()
        while True:
            nodes, step = _destinations(job, task, home, refused)
            steps.append(step)
            if not nodes:
                break
            parked, step = _park_task(job, task, parked, ParkedTask(home=home, nodes=nodes))
            steps.append(step)
            if task.name in parked.tasks:
                break
            refused = refused | nodes.values()  # there may be room on others
    return steps


def _home(job: Job, task: Task) -> NodeSet:
    known = job.known().get(task.name)
    return known.home.nodes | known.visited if known else task.placement.nodes


def _destinations(
    job: Job, task: Task, home: NodeSet, refused: NodeSet
) -> tuple[dict[int, int], Step]:
    """Return for each node of home another one to park on; none, and why, if there are too few.

    No two nodes are parked on one: the memory could not be brought back to where it was. Nothing is
    parked on nodes that were `refused`, which has been said already.
    """
    if job.actions.park == AnyNode.ANY:
        nodes = choose_nodes(job, task, home, refused)
        if nodes is None and not refused:
            return {}, _not_parked(task, f"no node has room of its own for each of nodes {home}")
        return nodes or {}, Step()
    assert isinstance(job.actions.park, NodeSet)
    sources, free = home - job.actions.park, job.actions.park - home - refused
    if len(sources) <= len(free):
        return choose_by_room(job, task, sources, free), Step()
    if refused:
        return {}, Step()
    why = f"nodes {sources} need a node each, and there are nodes {free}"
    return {}, _not_parked(task, why)


def _not_parked(task: Task, why: str) -> Step:
    return Step(lines=(f"{task.name}: not parked: {why}",))


def _park_task(job: Job, task: Task, before: Parked, entry: ParkedTask) -> tuple[Parked, Step]:
    parked = replace(before, tasks={**before.tasks, task.name: entry})
    write_parked(job, parked)
    try:
        if job.adapter.allow_nodes(job.name, NodeSet(entry.nodes.values())):
            parked = replace(parked, widened=True)
            write_parked(job, parked)
    except RefusedError as refusal:
        write_parked(job, before)
        return before, _not_parked(task, str(refusal))
    report, step = move(job, [task], Request(node_map=NodeMap(pairs=entry.nodes, mapper="parked")))
    if report is None or report.outcome is Outcome.REFUSED:
        parked = replace(parked, tasks=before.tasks)
        if not parked.tasks:
            job.adapter.restore_nodes(job.name)
        write_parked(job, parked)
    return parked, step


# -- back ----------------------------------------------------------------------------------------


def bring_back(job: Job, tasks: Sequence[Task], parked: Parked) -> list[Step]:
    """Move parked memory to the nodes that its task has now."""
    steps = []
    left = {task.name: parked.tasks[task.name] for task in tasks if task.name in parked.tasks}
    for task in _in_order([task for task in tasks if task.name in left], parked):
        new = task.placement.nodes
        if not new:
            continue
        request = way_back(left[task.name], read_topology(job.root).preferred(new))
        report, step = move(job, [task], request) if request else (None, Step())
        # A cpuset that is narrower than the memory in it may get the job killed.
        done = _ARRIVED if parked.widened else SETTLED
        if report is None or report.outcome in done:
            del left[task.name]
            job.remember(placements([task]))
        else:
            step = replace(step, retry_after=job.retry_s)
        steps.append(step)
    if not left:
        job.adapter.restore_nodes(job.name)
    write_parked(job, replace(parked, tasks=left))
    return steps


def _in_order(tasks: Sequence[Task], parked: Parked) -> list[Task]:
    """Return the tasks in an order in which none comes to a node that a later one leaves.

    Memory that tasks share would go on with the other task.
    """
    levels = vacate_first(
        tasks,
        lambda task: (NodeSet(parked.tasks[task.name].nodes.values()), task.placement.nodes),
    )
    return [task for level in levels for task in level]


def way_back(entry: ParkedTask, new: NodeSet) -> Request | None:
    """Return what brings the memory to the task's nodes `new`: if it can, each page to its own.

    None if the nodes that it is on are the task's own.
    """
    back = {at: old for old, at in entry.nodes.items()}
    sources = NodeSet(back) - new
    if not sources:
        return None
    if not entry.home & sources and NodeSet(back.values()) <= new:
        return Request(node_map=NodeMap(pairs=back, mapper="parked"))
    return Request(sources=sources, destinations=new)
