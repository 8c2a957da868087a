"""The work on one job for one event, in its order: finish, park or bring back, follow."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from schedhook.agent.job import SETTLED, Job, is_from_hook, may_try_again, move, placements
from schedhook.agent.keep_local.work import KEEPS_LOCAL, keep_local
from schedhook.agent.overrides import StartingSteps, keep_override
from schedhook.agent.parking import Parked, bring_back, park, read_parked, write_parked
from schedhook.agent.repatriation import gather, repatriate
from schedhook.agent.results import EventResult, Step, combine
from schedhook.host.topology import read_topology
from schedhook.roles.request import Request
from schedhook.roles.scheduler import EventKind, Replacement, Task
from schedhook.values.actions import OnRelocation, OnSharedProcessors
from schedhook.values.model import Event, Placement
from schedhook.values.nodemap import vacate_first
from schedhook.values.sets import NodeSet

_LOCK_SECONDS = 20.0
"""How long a hook's event waits for another one of its job: a resume for the suspension, say."""
_WAITING = frozenset({EventKind.SUSPENDED, EventKind.RESUMING, EventKind.RELOCATED})


def lock_seconds(event: Event, kind: EventKind) -> float:
    """Return for how long the event waits for another one of its job, or for a trade with it."""
    return _LOCK_SECONDS if kind in _WAITING and is_from_hook(event) else 0


def follow_up(job: Job, starting: StartingSteps) -> EventResult:
    """Do what the event asks for. Raise JobLockedError if another process works on the job."""
    with job.records.locked(job.scheduler, job.name, lock_seconds(job.event, job.kind)):
        run = job.records.run(job.scheduler, job.name)
        if run is not None and run.ended is not None:
            return EventResult(summary="the job has ended", acted=False)
        parked = read_parked(job)
        steps = finish_interrupted(job, parked)
        if steps:
            parked = read_parked(job)
        tasks = job.tasks()
        if not tasks:
            return combine(steps, "no processes here")
        if run is not None and run.alias is None:
            job.record_description()
        return combine([*steps, *_act(job, tasks, parked, starting)], "all in place")


def _act(
    job: Job, tasks: Sequence[Task], parked: Parked | None, starting: StartingSteps
) -> list[Step]:
    if job.kind is EventKind.SUSPENDED:
        if job.actions.is_off:
            return [_leave(job, tasks, "where it is")]
        return _within_budget(job, lambda: park(job, tasks)) if parked is None else []
    if job.kind in (EventKind.RESUMING, EventKind.RESUMED):
        suspended_anew = job.event.data.get("again") and job.adapter.suspended(job.name)
        return [] if suspended_anew else _resume(job, tasks, parked)
    if parked is None:
        return _look(job, tasks, starting)
    if not job.adapter.suspended(job.name):
        return bring_back(job, tasks, parked)  # it runs, and its resume was missed
    said = "parked: nothing moves before the job resumes"
    return [] if job.kind is EventKind.LOOK else [Step(lines=(said,))]


# -- suspended jobs ------------------------------------------------------------------------------


def finish_interrupted(job: Job, parked: Parked | None) -> list[Step]:
    """Finish what a killed process began: other CPUs for the job."""
    nodes = parked.nodes if parked else {}
    done = job.adapter.finish_interrupted(job.name, nodes, job.relocate)
    if done is None:
        return []
    _settle(job, done)
    return [Step(lines=(f"finished what was interrupted: {done.summary}",))]


def _resume(job: Job, tasks: Sequence[Task], parked: Parked | None) -> list[Step]:
    steps: list[Step] = []
    wanted = job.actions.on_shared_processors
    resuming = job.kind is EventKind.RESUMING and not job.event.data.get("again")
    if resuming and wanted is not OnSharedProcessors.LEAVE:
        found = job.adapter.resolve_sharing(
            job.name,
            parked.nodes if parked else {},
            job.relocate,
            replace=wanted is OnSharedProcessors.REPLACE,
        )
        if found is not None:
            steps.append(Step(lines=(found.summary,)))
            if found.moved:
                _settle(job, found)
                return steps
    if parked is not None:
        steps += bring_back(job, tasks, parked)
    return steps


def _settle(job: Job, done: Replacement) -> None:
    """Record that the job's memory is where its CPUs are now, and no longer parked."""
    if done.moved:
        write_parked(job, None)
        job.remember(placements(job.tasks()))


# -- following -----------------------------------------------------------------------------------


def _look(job: Job, tasks: Sequence[Task], starting: StartingSteps) -> list[Step]:
    """Compare the tasks' placements with the journal, and act on what differs."""
    step = keep_override(job, tasks, starting)
    steps = [step]
    if step.waits:
        return steps
    if step.lines:
        tasks = job.tasks()
    if rebind(job, tasks):
        steps.append(Step(lines=("tasks bound again",)))
        tasks = job.tasks()
    if job.kind is EventKind.RELOCATED:
        steps += _gather_unknown(job, tasks)
    steps += follow(job, tasks)
    if job.event.data.get("repatriate"):
        steps += repatriate(job, tasks)
    if job.event.data.get(KEEPS_LOCAL):
        steps += keep_local(job, tasks)
    return steps


def rebind(job: Job, tasks: Sequence[Task]) -> bool:
    """Let the adapter bind the tasks again that a changed cpuset has unbound; return whether any.

    With cgroups of version 2 a task loses its own binding then, and nothing else on the host tells
    which CPUs belong to which task.
    """
    if job.actions.on_relocation is not OnRelocation.FOLLOW:
        return False
    names = {task.name for task in tasks}
    bound = job.records.bindings(job.scheduler, job.name, names)
    return bool(bound) and job.adapter.rebind(job.name, bound)


def _gather_unknown(job: Job, tasks: Sequence[Task]) -> list[Step]:
    """Bring home the memory of tasks that were relocated before the journal knew them.

    It may be on any node. That is only certain to be wrong if the scheduler granted nodes.
    """
    known, granted = job.known(), job.adapter.granted(job.name)
    unknown = [task for task in tasks if task.name not in known and task.name in granted]
    if job.actions.on_relocation is not OnRelocation.FOLLOW:
        return [_leave(job, [task], "where it is") for task in unknown]
    return [gather(job, unknown)] if unknown else []


def _leave(job: Job, group: Sequence[Task], where: str) -> Step:
    names = ", ".join(task.name for task in group)
    return Step(lines=(f"{names}: left {where}, {job.actions.reason}",))


def follow(job: Job, tasks: Sequence[Task]) -> list[Step]:
    """Move each task's memory from its home, and the nodes it visited since, to its nodes now."""
    known = job.known()
    in_place: dict[str, Placement] = {}
    away: dict[str, Placement] = {}
    groups: dict[tuple[NodeSet, NodeSet], list[Task]] = {}
    for task in tasks:
        seen = known.get(task.name)
        new = task.placement.nodes
        if seen is None:
            in_place[task.name] = task.placement
            continue
        old = seen.old_nodes(new)
        moves = bool(old - new and new)
        if moves:
            groups.setdefault((old, new), []).append(task)
        if not moves and new == seen.home.nodes:
            in_place[task.name] = task.placement
        else:
            # Its home stays its home until its memory has moved, which need not happen.
            away[task.name] = task.placement
    # Before anything moves, in case this process is killed: where memory may be by then, and
    # how all tasks were bound at one time.
    job.remember(in_place, away)
    # Memory that tasks share must not arrive on a node that another group has yet to leave.
    levels = vacate_first(list(groups), lambda ends: ends)
    ordered = [ends for level in levels for ends in level]
    if not ordered or job.actions.on_relocation is not OnRelocation.FOLLOW:
        return [_follow_group(job, *ends, groups[ends]) for ends in ordered]
    return _within_budget(
        job, lambda: [_follow_group(job, *ends, groups[ends]) for ends in ordered]
    )


def _within_budget(job: Job, act: Callable[[], list[Step]]) -> list[Step]:
    """Return what `act` does, which moves memory, or the step of waiting until it may.

    Only the first wait is in the history. A try that is repeated and moves nothing costs nothing.
    """
    if is_from_hook(job.event):
        return act()
    key = job.key
    wait = job.budget.wait(key)
    if wait:
        said = f"changes too often: its memory follows in {wait:.0f} s, see moves_at_once"
        return [Step(lines=(said,), waits=not job.budget.tell(key), retry_after=wait)]
    began = time.monotonic()
    steps = act()
    done = [step for step in steps if step.lines and not step.waits]
    failed_again = job.event.data.get("again") and not any(step.ok for step in done)
    if done and not failed_again:
        job.budget.spend(key, time.monotonic() - began)
    return steps


def _follow_group(job: Job, old: NodeSet, new: NodeSet, group: Sequence[Task]) -> Step:
    if job.actions.on_relocation is not OnRelocation.FOLLOW:
        told = job.kind is EventKind.RELOCATED  # not again at each look
        return _leave(job, group, f"on nodes {old - new}") if told else Step()
    destinations = read_topology(job.root).preferred(new)
    report, step = move(job, group, Request(sources=old, destinations=destinations))
    if report is not None and may_try_again(job, report):
        lines = (*step.lines, f"what stayed is tried again in {job.retry_s:g} s")
        return Step(lines=lines, ok=step.ok, retry_after=job.retry_s)
    if report is not None and report.outcome not in SETTLED:
        return Step(lines=step.lines, ok=step.ok, retry_after=job.retry_s)
    job.remember(placements(group))
    return step
