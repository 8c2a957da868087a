"""Find jobs on this host through the schedulers' adapters."""

from __future__ import annotations

from pathlib import Path

from schedhook.plugins.descriptors import SchedulerPlugin
from schedhook.plugins.manager import Plugins
from schedhook.roles.scheduler import Task, check_job
from schedhook.values.errors import UsageError


def scheduler_names(plugins: Plugins, scheduler: str | None = None) -> list[str]:
    """Return the names of the adapters to ask: the given one, else all."""
    return [scheduler] if scheduler else plugins.names(SchedulerPlugin)


def find_tasks(
    plugins: Plugins, job: str, scheduler: str | None, root: Path
) -> tuple[str, tuple[Task, ...]]:
    """Return the job's scheduler and its tasks on this host.

    Without `scheduler`, the first adapter that knows the job answers. Raise UsageError if none
    does, or if `job` cannot be a job's id.
    """
    check_job(job)
    names = scheduler_names(plugins, scheduler)
    for name in names:
        tasks = plugins.adapter(name, root).tasks(job)
        if tasks:
            return name, tasks
    asked = ", ".join(names) or "no scheduler"
    raise UsageError(f"no process of job {job!r} on this host; asked: {asked}")


def find_pids(plugins: Plugins, job: str, scheduler: str | None, root: Path) -> tuple[int, ...]:
    """Return the job's processes on this host, each once; see `find_tasks`."""
    _, tasks = find_tasks(plugins, job, scheduler, root)
    return tuple(dict.fromkeys(pid for task in tasks for pid in task.pids))
