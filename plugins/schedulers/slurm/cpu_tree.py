"""A job's cpusets, from the job's down to its tasks', and the processors that they may hold.

On version 1 Slurm also makes a cpuset for all jobs of a user, between its own and the job's.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from schedhook.control.cpu_move import ChooseBinding, CpuMoveResult, CpusetChange, move_processors
from schedhook.control.cpusets import write_cpus
from schedhook.host.cgroups import Cgroup, configured_cpus, effective_cpus, pids, subtree
from schedhook.host.topology import read_online_cpus
from schedhook.roles.scheduler import Task
from schedhook.values.errors import RefusedError, UsageError
from schedhook.values.sets import CpuSet
from schedhook_plugins.schedulers.slurm.cgroups import starting_steps, step_cgroups

StepCpus = Callable[[str, CpuSet], CpuSet]
"""From a step's name and the cpuset of one of its cgroups to the new cpuset of that cgroup."""


def union(sets: Iterable[CpuSet]) -> CpuSet:
    """Return the processors that are in any of the sets."""
    return CpuSet(cpu for each in sets for cpu in each)


def job_cpus(cgroups: Iterable[Cgroup], tasks: Iterable[Task], root: Path) -> CpuSet:
    """Return the processors of the job's cpuset; if it has none, those that its tasks may use."""
    for cgroup in cgroups:
        if configured_cpus(cgroup):
            return effective_cpus(cgroup, root)
    return union(task.placement.cpus for task in tasks)


def check_cpus(cpus: CpuSet, cgroups: Iterable[Cgroup], root: Path) -> None:
    """Raise UsageError or RefusedError if the job cannot have these processors.

    UsageError: they are none, or not online. RefusedError: the cpuset above the job's does not
    allow all of them.
    """
    if not cpus:
        raise UsageError("the set of processors is empty; write it like 0-3,8")
    online = read_online_cpus(root)
    if cpus - online:
        raise UsageError(f"processor {cpus - online} is not online; online are {online}")
    for job in cgroups:
        # On version 1 the user's directory in between is Slurm's too, and is widened with the job.
        above = job.path.parents[1] if job.version == 1 else job.path.parent
        allowed = effective_cpus(replace(job, path=above), root)
        if configured_cpus(job) and cpus - allowed:
            raise RefusedError(f"{above} allows processors {allowed}, not {cpus - allowed}")


def step_names(cgroups: Iterable[Cgroup]) -> frozenset[str]:
    """Return the names of the job's steps on this host."""
    return frozenset(step for cgroup in cgroups for step in step_cgroups(cgroup))


def started_steps(cgroups: Sequence[Cgroup], root: Path) -> frozenset[str]:
    """Return the steps less those whose tasks Slurm seems to have yet to bind and start."""
    names = step_names(cgroups)
    return names.difference(*(starting_steps(cgroup, root) for cgroup in cgroups))


def move_job(
    cgroups: Sequence[Cgroup],
    tasks: Iterable[Task],
    *,
    steps: Collection[str],
    cpus: CpuSet,
    step_cpus: StepCpus,
    bind: ChooseBinding,
    move_memory: Callable[[], None],
    root: Path,
) -> CpuMoveResult:
    """Give the job's cpusets and threads other processors, and move the memory in between.

    The job's own cpuset becomes `cpus`, those of its steps `step_cpus`, and each thread is bound as
    `bind` says. If it fails, everything is put back, and the result has the reason; see
    `move_processors`. It fails if the job has another step than `steps` meanwhile: Slurm could not
    bind the tasks of that step to the processors that it gave them, and the step would be lost.
    """

    def check() -> None:
        if new := sorted(step_names(cgroups) - set(steps)):
            raise RefusedError(f"step {new[0]} of the job is starting: try again in some seconds")

    changes = [
        change
        for cgroup in cgroups
        if configured_cpus(cgroup)
        for change in _cpuset_changes(cgroup, cpus, step_cpus)
    ]
    # Without cpusets only tasks are bound: slurmstepd keeps its own binding.
    bound = processes_in(cgroups, root) if changes else present(_pids(tasks), cgroups, root)
    result = move_processors(changes, bound, bind, move_memory, root, check)
    if not result.done:
        _admit_steps(cgroups, steps)
    return result


def _admit_steps(cgroups: Iterable[Cgroup], known: Collection[str]) -> None:
    """Let a job have its new steps' processors, too: what was put back may be without them."""
    for job in cgroups:
        for name, step in step_cgroups(job).items():
            if name not in known and configured_cpus(job):
                write_cpus(job, configured_cpus(job) | configured_cpus(step))


def processes_in(cgroups: Iterable[Cgroup], root: Path) -> Callable[[], list[int]]:
    """Return a function that lists the processes in the job's cgroups at the time of the call."""
    return lambda: sorted({pid for each in cgroups for pid in pids(each, root)})


def present(
    members: Iterable[int], cgroups: Iterable[Cgroup], root: Path
) -> Callable[[], list[int]]:
    """Return a function that lists those of `members` that are still in the job's cgroups.

    A number that has left may be that of a process outside the job by now.
    """
    inside = processes_in(cgroups, root)
    wanted = set(members)
    return lambda: [pid for pid in inside() if pid in wanted]


def _pids(tasks: Iterable[Task]) -> list[int]:
    return [pid for task in tasks for pid in task.pids]


def _cpuset_changes(job: Cgroup, cpus: CpuSet, step_cpus: StepCpus) -> Iterator[CpusetChange]:
    """Yield a change for each cpuset that Slurm has set, from the top down."""
    if job.version == 1:
        user = replace(job, path=job.path.parent)
        if configured_cpus(user):
            yield CpusetChange(cgroup=user, cpus=cpus, stays_wide=True)
    yield CpusetChange(cgroup=job, cpus=cpus)
    for step, top in step_cgroups(job).items():
        for cgroup in subtree(top):
            now = configured_cpus(cgroup)
            if now:
                yield CpusetChange(cgroup=cgroup, cpus=step_cpus(step, now))
