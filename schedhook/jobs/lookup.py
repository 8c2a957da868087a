"""Jobs on this host, through the schedulers' adapters."""

from __future__ import annotations

from pathlib import Path

from schedhook.plugins.descriptors import SchedulerPlugin
from schedhook.plugins.manager import Plugins
from schedhook.roles.scheduler import Task, check_job
from schedhook.values.errors import UsageError


def scheduler_names(plugins: Plugins, scheduler: str | None = None) -> list[str]:
    """The adapters to ask: the named one, else all."""
    return [scheduler] if scheduler else plugins.names(SchedulerPlugin)


def find_tasks(
    plugins: Plugins, job: str, scheduler: str | None, root: Path
) -> tuple[str, tuple[Task, ...]]:
    """(scheduler, the job's tasks on this host), from the named adapter, else from the first that
    knows the job. UsageError where none does, and for what can be no job's id.
    """
    check_job(job)
    names = scheduler_names(plugins, scheduler)
    for name in names:
        tasks = plugins.scheduler(name).create(root).tasks(job)
        if tasks:
            return name, tasks
    raise UsageError(
        f"no process of job {job!r} on this host; asked: {', '.join(names) or 'no scheduler'}"
    )


def find_pids(plugins: Plugins, job: str, scheduler: str | None, root: Path) -> tuple[int, ...]:
    """The job's processes on this host; see `find_tasks`."""
    _, tasks = find_tasks(plugins, job, scheduler, root)
    return tuple(dict.fromkeys(pid for task in tasks for pid in task.pids))
