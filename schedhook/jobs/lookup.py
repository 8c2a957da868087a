"""Find jobs on this host through the schedulers' adapters."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from schedhook.plugins.descriptors import SchedulerPlugin
from schedhook.plugins.manager import Plugins
from schedhook.roles.scheduler import Scheduler, Task, check_job
from schedhook.values.errors import PLUGIN_ERRORS, UsageError
from schedhook.values.text import describe_error


@dataclass(frozen=True, slots=True)
class FoundJob:
    """A job on this host."""

    adapter: Scheduler
    job: str
    """Its id."""
    tasks: tuple[Task, ...]

    @property
    def pids(self) -> tuple[int, ...]:
        """Its processes on this host, each once."""
        return tuple(dict.fromkeys(pid for task in self.tasks for pid in task.pids))


def scheduler_names(plugins: Plugins, scheduler: str | None = None) -> list[str]:
    """Return the names of the adapters to ask: the given one, else all."""
    return [scheduler] if scheduler else plugins.names(SchedulerPlugin)


def find_job(plugins: Plugins, text: str, scheduler: str | None, root: Path) -> FoundJob:
    """Return the job that people call `text`, such as `36_2`.

    Without `scheduler`, the first adapter that knows the job answers. Raise UsageError if none
    does, or if `text` names several jobs.
    """
    return _find(plugins, text, scheduler, root, lambda adapter: adapter.resolve(text))


def find_tasks(
    plugins: Plugins, job: str, scheduler: str | None, root: Path
) -> tuple[str, tuple[Task, ...]]:
    """Return the scheduler and the tasks of the job with this id; see `find_job`."""
    found = _find(plugins, job, scheduler, root, lambda _: job)
    return found.adapter.name, found.tasks


def find_pids(plugins: Plugins, job: str, scheduler: str | None, root: Path) -> tuple[int, ...]:
    """Return the processes on this host, each once, of the job with this id; see `find_job`."""
    return _find(plugins, job, scheduler, root, lambda _: job).pids


def find_jobs(
    plugins: Plugins, scheduler: str | None, root: Path
) -> tuple[list[tuple[str, str]], list[str]]:
    """Return (scheduler, job) of every job that has processes here.

    Also return a line for each scheduler that failed. Raise PluginError if `scheduler` is unknown.
    """
    if scheduler is not None:
        plugins.scheduler(scheduler)
    found: list[tuple[str, str]] = []
    problems: list[str] = []
    for name in scheduler_names(plugins, scheduler):
        try:
            adapter = plugins.adapter(name, root)
            found += [(name, job) for job in adapter.jobs() if adapter.tasks(job)]
        except PLUGIN_ERRORS as error:  # an adapter is a plug-in
            problems.append(f"{name}: {describe_error(error)}")
    return found, problems


def _find(
    plugins: Plugins,
    text: str,
    scheduler: str | None,
    root: Path,
    resolve: Callable[[Scheduler], str],
) -> FoundJob:
    check_job(text)
    names = scheduler_names(plugins, scheduler)
    for name in names:
        adapter = plugins.adapter(name, root)
        job = resolve(adapter)
        tasks = adapter.tasks(job)
        if tasks:
            return FoundJob(adapter, job, tasks)
    asked = ", ".join(names) or "no scheduler"
    hint = "" if os.geteuid() == 0 else "; run as root if it is another user's job"
    raise UsageError(
        f"no process of job {text!r} on this host; asked: {asked}; `schedhook show` lists the jobs"
        f" here{hint}"
    )
