"""Give a job the processors of its override again.

Slurm writes its own cpuset whenever a step starts, which undoes the override. A relocation that was
interrupted (`override.leaving`) is finished here too: some cpusets, bindings and pages are then
where they were, and others where they were going.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from schedhook.control.cpu_map import relative
from schedhook.host.topology import Topology, read_topology
from schedhook.roles.request import Relocate
from schedhook.roles.scheduler import Task
from schedhook.values.errors import RefusedError
from schedhook.values.model import Placement, PlacementOverride
from schedhook.values.nodemap import in_order
from schedhook.values.sets import CpuSet
from schedhook_plugins.schedulers.slurm.adapter import HostJobs
from schedhook_plugins.schedulers.slurm.cpu_tree import check_cpus, move_job, started_steps
from schedhook_plugins.schedulers.slurm.memory import JobMemory, describe, left_by_reason
from schedhook_plugins.schedulers.slurm.node_pairs import node_pairs

_TaskPairs = list[tuple[Task, dict[int, int]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Goal:
    """Where the parts of a job belong, whatever part of the way they have gone."""

    was: CpuSet
    """What the job had before, or has now because Slurm gave it back."""
    want: CpuSet
    settled: Mapping[str, CpuSet]
    """Tasks at home within `want`: they and their steps go back there."""
    leaving: Mapping[str, CpuSet]
    """Tasks at home within `was`: they go to the same places within `want`."""

    def end_of(self, task: str) -> CpuSet | None:
        """Return the processors that a task should have in the end, None if its home is unknown."""
        if task in self.settled:
            return self.settled[task]
        home = self.leaving.get(task)
        return None if home is None else relative(home, self.was, self.want)

    def _has_arrived(self, cpus: CpuSet) -> bool:
        """Return whether an interrupted relocation had set these processors already."""
        return cpus <= self.want and not cpus <= self.was

    def step_cpus(self, step: str, now: CpuSet) -> CpuSet:
        """Return the cpuset that a cgroup of a step should have that has `now`."""
        settled = any(name.partition(".")[0] == step for name in self.settled)
        if self._has_arrived(now) or (settled and now <= self.want):
            return now
        return relative(now & self.was, self.was, self.want)

    def binding(self, task: str | None, had: CpuSet) -> CpuSet:
        """Return the binding that a thread of a task should have that had `had`."""
        end = self.end_of(task) if task is not None else None
        if end is None:
            return had if self._has_arrived(had) else relative(had, self.was, self.want)
        return had if had < end else end


def reapply(
    here: HostJobs,
    job: str,
    override: PlacementOverride,
    relocate: Relocate,
    homes: Mapping[str, Placement],
) -> str:
    """Give the job the processors, bindings and memory of its override and return a line about it.

    `homes` tells, by task, where its memory was brought to last. Tasks at home within the
    override's processors go back there; the others, and those of a new step, move as the job did.
    Raise SchedhookError if it failed and everything was put back.
    """
    cgroups = here.cgroups(job)
    tasks = here.tasks(job)
    if not cgroups or not tasks:
        return "no process on this host"
    steps = started_steps(cgroups, here.root)
    goal = _goal(override, tasks, homes)
    check_cpus(goal.want, cgroups, here.root)
    pairs = _task_pairs(goal, tasks, override.under_way, read_topology(here.root))
    memory = JobMemory(job, here.root, relocate, in_order(pairs))
    memory.plan()
    task_of = {pid: task.name for task in tasks for pid in task.pids}
    result = move_job(
        cgroups,
        tasks,
        steps=steps,
        cpus=goal.want,
        step_cpus=goal.step_cpus,
        bind=lambda pid, had: goal.binding(task_of.get(pid), had),
        move_memory=memory.move,
        root=here.root,
    )
    if result.failure is not None:
        back = memory.move_back()
        why = filter(None, [result.failure, *result.not_restored, back])
        raise RefusedError("; ".join(why))
    moved = sum(report.bytes_moved for report in memory.reports)
    bytes_line = describe(moved, left_by_reason(memory.reports))
    return f"override reapplied: processors {goal.want}, {bytes_line}"


def _goal(
    override: PlacementOverride, tasks: Sequence[Task], homes: Mapping[str, Placement]
) -> _Goal:
    was, want = override.leaving or override.was.cpus, override.placement.cpus
    known = {task.name: homes[task.name].cpus for task in tasks if task.name in homes}
    # In the middle of a move no task is settled: its home is still what it leaves.
    settled: dict[str, CpuSet] = {}
    if override.leaving is None:
        settled = {name: cpus for name, cpus in known.items() if cpus <= want}
    leaving = {name: cpus for name, cpus in known.items() if cpus <= was and name not in settled}
    return _Goal(was=was, want=want, settled=settled, leaving=leaving)


def _task_pairs(
    goal: _Goal, tasks: Sequence[Task], under_way: bool, topology: Topology
) -> _TaskPairs:
    """Return old node → new node for each task whose memory should move."""
    starts = {task.name: goal.leaving.get(task.name, task.placement.cpus) for task in tasks}
    pairs = [(task, node_pairs(starts[task.name], goal.was, goal.want, topology)) for task in tasks]
    moves = {move for _, its in pairs for move in its.items() if move[0] != move[1]}
    if {old for old, _ in moves} & {new for _, new in moves}:
        # On a node that is both old and new memory that has arrived looks like memory that has not.
        known = goal.settled if not under_way else {**goal.settled, **goal.leaving}
        return [(task, its) for task, its in pairs if task.name not in known]
    return pairs
