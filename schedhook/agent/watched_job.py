"""One job that the watcher looks at: what it keeps open of the job, and what has changed."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from schedhook.agent.open_files import OpenDirectory, OpenFile
from schedhook.host.cgroups import memberships
from schedhook.roles.scheduler import Scheduler, Task
from schedhook.values.config import WatchSection
from schedhook.values.errors import PLUGIN_ERRORS, SchedhookError
from schedhook.values.model import Placement

_CPUSET_FILES = (
    ("cpuset.cpus.effective", "cpuset.effective_cpus", "cpuset.cpus", "cpus"),
    ("cpuset.mems.effective", "cpuset.effective_mems", "cpuset.mems", "mems"),
)
"""The first of each that exists is read: cgroup version 2, then the spellings of version 1."""
_FIRST_REFRESH_SECONDS = 5.0
_REFRESH_SECONDS = 300.0
"""How soon all of a job is read again if nothing seems to change: after a job or a step has started
soon, then half as often each time. The kernel does not tell of a process that joins others.
"""
_REPLACE_SECONDS = 60.0
"""How soon all is read if a sampled process has exited."""
_REPLACE_ALL_SECONDS = 15.0
"""The same if all sampled processes have exited, or if there is none yet."""
_MAX_DEBOUNCE = 10
"""A job that never stops changing is looked at after this many times the debounce time."""
_LONGEST_PAUSE = 30.0
"""The longest time, in seconds, between two looks at a job that changes all the time."""
_QUIET = 4
_LEAST_QUIET = 10.0
"""A job changes all the time until it is quiet for so many times its last pause, or seconds."""
_PIDS_PER_TASK = 4
_STATES_PER_JOB = 4
_STOPPED = (b"T", b"t")
"""States of stopped processes in /proc/PID/stat; proc(5)."""


class WatchedJob:
    """A job's open files, and what was read of them.

    Call `open` first and `close` last. Methods may raise OSError if the job has just ended.
    """

    def __init__(self, adapter: Scheduler, job: str, section: WatchSection, root: Path) -> None:
        self.adapter = adapter
        self.job = job
        self.suspended = False
        self.tasks: tuple[Task, ...] = ()
        """As they were at the latest reading."""
        self.debounce = Debounce(section.debounce_s)
        self.notifying: dict[int, OpenFile] = {}
        """cgroup.events of the tasks' cgroups by descriptor: the kernel notifies of changes."""
        self._task_interval = section.task_interval_s
        self._root = root
        self._cgroup_files: list[OpenFile | OpenDirectory] = []
        """Files of the job's cpuset, and the directories of its cgroups."""
        self._sample = ProcessSample((), root)
        self._next_sample = 0.0
        self._refresh_interval = _FIRST_REFRESH_SECONDS
        self._next_refresh = 0.0

    @property
    def key(self) -> tuple[str, str]:
        """(scheduler, job)."""
        return self.adapter.name, self.job

    def open(self, now: float) -> None:
        """Open the job's cgroups and read its tasks."""
        for cgroup in self.adapter.cgroups(self.job):
            self._cgroup_files += _open_cpuset(cgroup)
            with contextlib.suppress(OSError):
                self._cgroup_files.append(OpenDirectory(cgroup))
        self.read_tasks(now)

    def read_tasks(self, now: float) -> None:
        """Get the job's tasks from the adapter, and sample their processes again."""
        self._close_tasks()
        before, self.tasks = self.tasks, self.adapter.tasks(self.job)
        tasks = self.tasks
        if not _places(before).keys() <= _places(tasks).keys():
            # A step has ended. One that has begun in the same second shows in no count of cgroups.
            self._refresh_interval = _FIRST_REFRESH_SECONDS
        self._sample = ProcessSample(tasks, self._root)
        with contextlib.suppress(OSError):
            for path in _leaf_cgroups(self.adapter.cgroups(self.job), tasks, self._root):
                # Read at once: the kernel keeps notifying of a file that was never read.
                file = OpenFile(path / "cgroup.events")
                self.notifying[file.descriptor] = file
        # Spread over the interval, so that one tick does not read all jobs.
        spread = 0.5 + hash(self.job) % 64 / 128
        self._next_sample = now + self._task_interval * spread
        self._next_refresh = now + self._refresh_pause * spread

    def changed(self, now: float) -> bool:
        """Return whether anything differs from the last call, or all should be read again."""
        is_changed = False
        try:
            for each in self._cgroup_files:  # not any(): each of them must be read
                if each.changed():
                    is_changed = True
                    self._refresh_interval = _FIRST_REFRESH_SECONDS
            if now >= self._next_sample or self.suspended:
                self._next_sample = now + self._task_interval
                is_changed = self._sample_changed(now) or is_changed
        except OSError:
            return True  # part of the job has gone
        return is_changed or (now >= self._next_refresh and self._refresh(now))

    @property
    def _refresh_pause(self) -> float:
        # Without a process there is no file by which the kernel notifies of the first one.
        most = _REFRESH_SECONDS if self.tasks else _REPLACE_ALL_SECONDS
        return min(self._refresh_interval, most)

    def _refresh(self, now: float) -> bool:
        """Return whether the tasks have changed, or all should be read again anyway."""
        is_due = self._sample.has_lost or self._refresh_interval >= _REFRESH_SECONDS
        self._refresh_interval = min(2 * self._refresh_interval, _REFRESH_SECONDS)
        self._next_refresh = now + self._refresh_pause
        if is_due:
            return True
        try:
            return _places(self.adapter.tasks(self.job)) != _places(self.tasks)
        except PLUGIN_ERRORS:
            return True  # who reads all of it says why it cannot be read

    def notified(self, descriptor: int) -> bool:
        """Return whether a file that the kernel notified of has changed.

        Reading the file ends the notification.
        """
        try:
            return self.notifying[descriptor].changed()
        except OSError:
            return True

    def close(self) -> None:
        """Close everything."""
        for each in self._cgroup_files:
            each.close()
        self._cgroup_files = []
        self._close_tasks()

    def _close_tasks(self) -> None:
        for file in self.notifying.values():
            file.close()
        self.notifying = {}
        self._sample.close()

    def _sample_changed(self, now: float) -> bool:
        changed, exited = self._sample.compare()
        if exited:
            # Other processes may have started; those that live briefly must not cost a full read
            # at every look.
            wait = _REPLACE_ALL_SECONDS if self._sample.is_empty else _REPLACE_SECONDS
            self._next_refresh = min(self._next_refresh, now + wait)
        return changed


class Debounce:
    """Delays an action until nothing has changed for `seconds`. Times are of time.monotonic().

    While one action follows another, the next one waits longer each time: reading a large job costs
    as much as a change of its binding is cheap.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._first = 0.0
        self._pause, self._not_before = 0.0, -math.inf
        self.due: float | None = None
        """When to act; None if nothing has changed."""

    def touch(self, now: float) -> None:
        """Note a change: act once it is quiet, or at the latest after ten times the delay."""
        if self.due is None:
            self._first = now
        due = min(now + self._seconds, self._first + _MAX_DEBOUNCE * self._seconds)
        self.due = max(due, self._not_before)

    def act_now(self, now: float) -> None:
        """Make the action due at once."""
        self.due = self._first = now

    def reset(self, now: float) -> None:
        """Forget the changes: they are being acted on."""
        self.due = None
        in_a_row = now < self._not_before + max(_QUIET * self._pause, _LEAST_QUIET)
        longer = min(max(2 * self._pause, self._seconds), _LONGEST_PAUSE)
        self._pause = longer if in_a_row else 0.0
        self._not_before = now + self._pause


class ProcessSample:
    """A few processes of each task: their affinity, and whether any of them is stopped."""

    def __init__(self, tasks: Sequence[Task], root: Path) -> None:
        self._affinities: dict[int, set[int]] = {}
        for task in tasks:
            for pid in task.pids[:_PIDS_PER_TASK]:
                with contextlib.suppress(OSError):
                    self._affinities[pid] = os.sched_getaffinity(pid)
        self._states: list[OpenFile] = []
        for pid in _spread(tasks, _STATES_PER_JOB):
            with contextlib.suppress(OSError):
                self._states.append(OpenFile(root / "proc" / str(pid) / "stat"))
        self._stopped = self._any_stopped()
        self.has_lost = False
        """Whether a process has exited since."""

    @property
    def is_empty(self) -> bool:
        return not self._affinities

    def compare(self) -> tuple[bool, bool]:
        """Return whether an affinity or the state has changed, and whether a process has exited.

        Processes that have exited are left out from then on.
        """
        now = {pid: _affinity(pid) for pid in self._affinities}
        alive = {pid: first for pid, first in self._affinities.items() if now[pid] is not None}
        exited = len(alive) < len(now)
        self.has_lost |= exited
        self._affinities = alive
        before, self._stopped = self._stopped, self._any_stopped()
        rebound = any(now[pid] != first for pid, first in alive.items())
        return rebound or self._stopped != before, exited

    def close(self) -> None:
        for file in self._states:
            file.close()
        self._states = []

    def _any_stopped(self) -> bool:
        for file in self._states:
            with contextlib.suppress(OSError):  # the process has exited
                if file.read().rpartition(b") ")[2][:1] in _STOPPED:
                    return True
        return False


def _places(tasks: Iterable[Task]) -> dict[str, Placement]:
    return {task.name: task.placement for task in tasks}


def _affinity(pid: int) -> set[int] | None:
    """Return the CPUs that the process may run on, None if it has exited."""
    try:
        return os.sched_getaffinity(pid)
    except OSError:
        return None


def _open_cpuset(cgroup: Path) -> list[OpenFile]:
    """Open the cgroup's files of effective CPUs and effective nodes, as far as they exist."""
    files = []
    for names in _CPUSET_FILES:
        for name in names:
            with contextlib.suppress(OSError):
                files.append(OpenFile(cgroup / name))
                break
    return files


def _leaf_cgroups(tops: Iterable[Path], tasks: Sequence[Task], root: Path) -> list[Path]:
    """Return the version 2 cgroups below `tops` that the tasks' processes are in."""
    names: set[str] = set()
    for pid in {task.pids[0] for task in tasks if task.pids}:
        with contextlib.suppress(SchedhookError):
            names.update(name for hierarchy, name in memberships(pid, root) if not hierarchy)
    found = set()
    for top in tops:
        for name in names:
            # The name of the job's cgroup is a part of the process's path; the leaf is below it.
            _, separator, below = name.partition(f"/{top.name}/")
            if separator and ".." not in below and (top / below / "cgroup.events").exists():
                found.add(top / below)
    return sorted(found)


def _spread(tasks: Sequence[Task], count: int) -> list[int]:
    """Return the first process of up to `count` tasks, evenly spread over the tasks."""
    first = [task.pids[0] for task in tasks if task.pids]
    if len(first) <= count:
        return first
    return [first[position * len(first) // count] for position in range(count)]
