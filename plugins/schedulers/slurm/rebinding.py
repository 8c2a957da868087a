"""Bind tasks again whose binding the kernel dropped when another process changed their cpuset."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from schedhook.control.cpu_map import relative
from schedhook.control.threads import affinity, bind, member_threads
from schedhook.values.errors import SchedhookError
from schedhook.values.model import Placement
from schedhook.values.sets import CpuSet
from schedhook_plugins.schedulers.slurm.adapter import HostJobs
from schedhook_plugins.schedulers.slurm.cpu_tree import job_cpus, present, union


def rebind(here: HostJobs, job: str, bound: Mapping[str, Placement]) -> bool:
    """Bind each task that lost its binding to the processors in the place of its old ones.

    `bound` has the bindings, by task, that were last seen. Return whether any task was bound.
    """
    tasks = here.tasks(job)
    cgroups = here.cgroups(job)
    known = [task for task in tasks if task.name in bound]
    if not known or not cgroups:
        return False
    old = union(bound[task.name].cpus for task in known)
    now = job_cpus(cgroups, tasks, here.root)
    if old <= now:
        return False  # no processor was taken away: a task that is unbound has unbound itself
    done = False
    for task in known:
        had = bound[task.name].cpus
        if had < old and task.placement.cpus == now:
            members = present(task.pids, cgroups, here.root)
            done |= _bind_unbound(members, now, relative(had, old, now), here.root)
    return done


def _bind_unbound(members: Callable[[], list[int]], now: CpuSet, cpus: CpuSet, root: Path) -> bool:
    """Bind the threads that may use all of `now`; a thread with a binding of its own keeps it."""
    bound = False
    for thread in member_threads(members, root):
        # A failure means that the cpuset has changed again, which the next look will see.
        with suppress(SchedhookError):
            if affinity(thread, root) == now:
                bound |= bind(thread, cpus, root)
    return bound
