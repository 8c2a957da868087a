"""The detector: what changes about jobs without any hook telling.

Idle, it costs a few short reads per job and second: of the effective cpuset and the number of
steps, through files that stay open, and less often of tasks' affinity and state. The kernel itself
tells of frozen jobs (cgroup.events, by poll). What looks new has to stay as it is for a while; then
the one event `look` says that it is worth comparing the job with the journal.
"""

from __future__ import annotations

import contextlib
import os
import select
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from schedhook.agent.events import SEEN_BY_WATCHER
from schedhook.host.cgroups import memberships
from schedhook.host.rlimits import raise_file_limit
from schedhook.roles.scheduler import EventKind, Scheduler, Task, check_job
from schedhook.values.config import WatchSection
from schedhook.values.errors import PLUGIN_ERRORS, SchedhookError
from schedhook.values.log import get_logger
from schedhook.values.model import Event

Emit = Callable[[Event], None]

_log = get_logger()


_CPUSET_FILES = (
    ("cpuset.cpus.effective", "cpuset.effective_cpus", "cpuset.cpus", "cpus"),
    ("cpuset.mems.effective", "cpuset.effective_mems", "cpuset.mems", "mems"),
)
"""One of each: version 2, then 1 in its several spellings."""
_SCAN_SECONDS = 2.0
"""Between two listings of the jobs while there are none."""
_RESCAN_SECONDS = 10.0
"""The same while there are some: the directories they lie in tell of others sooner."""
_GONE_SECONDS = 10.0
"""How long a job has no cgroup before that is worth an event."""
_REFRESH_SECONDS = 300.0
"""Between two full readings of a job in which nothing seems to change."""
_REPLACE_SECONDS = 60.0
"""Between two such readings where processes that were watched have exited."""
_STOPPED = (b"T", b"t")
_NEW_PER_TICK = 10
_LONGEST_DEBOUNCE = 10
"""In units of the debounce time: what never rests is looked at all the same."""
_MOST_PARENTS = 64
_PIDS_PER_TASK = 4
_STATES_PER_JOB = 4


class Watcher:
    """Watches the jobs of some adapters. Not for several threads.

    `emit` gets the events; `poller` is told of files whose changes the kernel announces: whoever
    polls it calls `notified` with them.
    """

    def __init__(
        self,
        adapters: Iterable[Scheduler],
        section: WatchSection,
        emit: Emit,
        poller: select.epoll | None = None,
        root: Path = Path("/"),
    ) -> None:
        self._adapters = tuple(adapters)
        self._section = section
        self._emit = emit
        self._poller = poller
        self._root = root
        self._jobs: dict[tuple[str, str], _Watched] = {}
        self._by_fd: dict[int, _Watched] = {}
        self._gone: dict[tuple[str, str], float] = {}
        self._next_scan = 0.0
        self._parents: dict[Path, _Directory] = {}
        """Where jobs' cgroups lie, and the directories above those."""
        self._broken: set[str] = set()
        raise_file_limit()

    @property
    def jobs(self) -> Sequence[tuple[str, str]]:
        """(scheduler, job) of what is watched."""
        return tuple(self._jobs)

    def tick(self, now: float) -> float:
        """Look at everything that is due; `now` is of time.monotonic(). When to be called again."""
        if now >= self._next_scan or self._parents_changed():
            more = self._scan(now)
            pause = _RESCAN_SECONDS if self._jobs and not self._gone else _SCAN_SECONDS
            self._next_scan = now if more else now + max(pause, self._section.interval_s)
        wake = now + self._section.interval_s
        for watched in list(self._jobs.values()):
            if watched.changed(now):
                watched.touch(now, self._section.debounce_s)
            if watched.due is not None and now >= watched.due:
                self._act(watched, now)
            if watched.due is not None:
                wake = min(wake, watched.due)
        return wake

    def scan_soon(self) -> None:
        """A job is about to come or to go: list jobs at the next tick."""
        self._next_scan = 0.0

    def notified(self, descriptor: int, now: float) -> bool:
        """The kernel says that a file has changed. Whether it is one of the watcher's."""
        watched = self._by_fd.get(descriptor)
        if watched is None:
            return False
        if watched.announced(descriptor):
            watched.touch(now, self._section.debounce_s)
        return True

    def close(self) -> None:
        """Leave all files."""
        for watched in list(self._jobs.values()):
            self._forget(watched)
        for directory in self._parents.values():
            directory.close()
        self._parents.clear()

    # -- coming and going ------------------------------------------------------------------------

    def _scan(self, now: float) -> bool:
        """Whether there are more new jobs than one tick may read."""
        new = 0
        self._drop_removed_parents()
        for adapter in self._adapters:
            try:
                present = set(adapter.jobs())
            except PLUGIN_ERRORS as error:  # an adapter is a plug-in
                self._complain(adapter.name, error)
                continue
            self._broken.discard(adapter.name)
            for key in [key for key in self._jobs if key[0] == adapter.name]:
                if key[1] not in present:
                    self._forget(self._jobs[key])
                    self._gone[key] = now
            for job in sorted(present):
                key = (adapter.name, job)
                if key not in self._jobs and new < _NEW_PER_TICK:
                    new += 1
                    self._begin(adapter, job, now)
        self._report_gone(now)
        return new >= _NEW_PER_TICK

    def _parents_changed(self) -> bool:
        changed = False
        for directory in self._parents.values():
            with contextlib.suppress(OSError):
                changed = directory.changed() or changed
        return changed

    def _drop_removed_parents(self) -> None:
        for path, directory in list(self._parents.items()):
            if not directory.is_at(path):
                del self._parents[path]
                directory.close()

    def _watch_parents(self, cgroups: Iterable[Path]) -> None:
        for cgroup in cgroups:
            for path in cgroup.parents[:2]:
                if path not in self._parents and len(self._parents) < _MOST_PARENTS:
                    with contextlib.suppress(OSError):
                        self._parents[path] = _Directory(path)

    def _begin(self, adapter: Scheduler, job: str, now: float) -> None:
        try:
            check_job(job)
            watched = _Watched(adapter, job, self._section, self._root)
            watched.open(now)
            self._watch_parents(adapter.cgroups(job))
        except PLUGIN_ERRORS as error:
            self._complain(adapter.name, error)
            return
        self._jobs[adapter.name, job] = watched
        self._register(watched)
        if self._gone.pop((adapter.name, job), None) is None:
            self._tell(watched, EventKind.JOB_STARTED)
        # Things may have changed before anybody watched.
        watched.touch(now, 0)

    def _register(self, watched: _Watched) -> None:
        if self._poller is None:
            return
        for descriptor in watched.announcing:
            # Plain files, which stand for cgroups in tests, cannot be polled.
            with contextlib.suppress(OSError):
                self._poller.register(descriptor, select.EPOLLPRI | select.EPOLLERR)
                self._by_fd[descriptor] = watched

    def _unregister(self, watched: _Watched) -> None:
        for descriptor in watched.announcing:
            if self._by_fd.pop(descriptor, None) is not None and self._poller is not None:
                with contextlib.suppress(OSError, ValueError):
                    self._poller.unregister(descriptor)

    def _forget(self, watched: _Watched) -> None:
        self._unregister(watched)
        watched.close()
        self._jobs.pop((watched.adapter.name, watched.job), None)

    def _report_gone(self, now: float) -> None:
        for key in [key for key, since in self._gone.items() if now - since >= _GONE_SECONDS]:
            del self._gone[key]
            scheduler, job = key
            point = EventKind.JOB_ENDED.value
            self._emit(Event(scheduler=scheduler, point=point, job=job, data=SEEN_BY_WATCHER))

    def _complain(self, name: str, error: BaseException) -> None:
        if name not in self._broken:  # once, not every second
            self._broken.add(name)
            _log.error("cannot watch", scheduler=name, problem=f"{type(error).__name__}: {error}")

    # -- acting ----------------------------------------------------------------------------------

    def _act(self, watched: _Watched, now: float) -> None:
        watched.rest()
        try:
            self._unregister(watched)
            try:
                watched.read_tasks(now)
            finally:
                self._register(watched)
            suspended = watched.adapter.suspended(watched.job)
        except PLUGIN_ERRORS as error:
            self._complain(watched.adapter.name, error)
            self.scan_soon()
            return
        if suspended != watched.suspended:
            watched.suspended = suspended
            self._tell(watched, EventKind.SUSPENDED if suspended else EventKind.RESUMED)
        self._tell(watched, EventKind.LOOK)

    def _tell(self, watched: _Watched, kind: EventKind) -> None:
        self._emit(
            Event(
                scheduler=watched.adapter.name,
                point=kind.value,
                job=watched.job,
                user=watched.adapter.owner(watched.job) if kind is EventKind.JOB_STARTED else None,
                data=SEEN_BY_WATCHER,
            )
        )


class _File:
    """A small file that stays open and is read again."""

    __slots__ = ("descriptor", "text")

    def __init__(self, path: Path) -> None:
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.text = os.pread(self.descriptor, 4096, 0)

    def changed(self) -> bool:
        text = os.pread(self.descriptor, 4096, 0)
        if text == self.text:
            return False
        self.text = text
        return True


class _Directory:
    """A directory that stays open, and how many there are in it."""

    __slots__ = ("descriptor", "links")

    def __init__(self, path: Path) -> None:
        self.descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.links = os.fstat(self.descriptor).st_nlink

    def changed(self) -> bool:
        links = os.fstat(self.descriptor).st_nlink
        if links == self.links:
            return False
        self.links = links
        return True

    def is_at(self, path: Path) -> bool:
        """Whether the path still leads to it."""
        try:
            return os.path.samestat(path.stat(), os.fstat(self.descriptor))
        except OSError:
            return False

    def close(self) -> None:
        os.close(self.descriptor)


class _Watched:
    """One job. Reading may raise OSError where it has just gone."""

    def __init__(self, adapter: Scheduler, job: str, section: WatchSection, root: Path) -> None:
        self.adapter = adapter
        self.job = job
        self.due: float | None = None
        """When to act, None while nothing has changed."""
        self.suspended = False
        self.announcing: dict[int, _File] = {}
        """cgroup.events of the tasks' cgroups, by descriptor."""
        self._section = section
        self._root = root
        self._since = 0.0
        self._files: list[_File] = []
        self._directories: list[_Directory] = []
        self._states: list[_File] = []
        self._affinities: list[tuple[int, set[int]]] = []
        self._stopped = False
        self._next_tasks = 0.0
        self._next_refresh = 0.0

    # -- opening ---------------------------------------------------------------------------------

    def open(self, now: float) -> None:
        """Open what is read at every look."""
        for cgroup in self.adapter.cgroups(self.job):
            for names in _CPUSET_FILES:
                for name in names:
                    with contextlib.suppress(OSError):
                        self._files.append(_File(cgroup / name))
                        break
            with contextlib.suppress(OSError):
                self._directories.append(_Directory(cgroup))
        self.read_tasks(now)

    def read_tasks(self, now: float) -> None:
        """Read the job's tasks anew, as the adapter tells them."""
        self._close_tasks()
        tasks = self.adapter.tasks(self.job)
        for task in tasks:
            for pid in task.pids[:_PIDS_PER_TASK]:
                with contextlib.suppress(OSError):
                    self._affinities.append((pid, os.sched_getaffinity(pid)))
        for pid in _spread(tasks, _STATES_PER_JOB):
            with contextlib.suppress(OSError):
                self._states.append(_File(self._root / "proc" / str(pid) / "stat"))
        with contextlib.suppress(OSError):
            for path in self._leaves(tasks):
                # Read at once: what was never read is announced as new again and again.
                file = _File(path / "cgroup.events")
                self.announcing[file.descriptor] = file
        self._stopped = self._any_stopped()
        interval = self._section.task_interval_s
        # Spread over the interval, lest all jobs be read in one tick.
        self._next_tasks = now + interval * (0.5 + hash(self.job) % 64 / 64)
        self._next_refresh = now + _REFRESH_SECONDS * (0.5 + hash(self.job) % 64 / 64)

    def _leaves(self, tasks: Sequence[Task]) -> list[Path]:
        """The version 2 cgroups that the tasks' processes are in, below the job's own."""
        tops = self.adapter.cgroups(self.job)
        names: set[str] = set()
        for pid in {task.pids[0] for task in tasks if task.pids}:
            with contextlib.suppress(SchedhookError):
                names.update(name for of, name in memberships(pid, self._root) if not of)
        found = set()
        for top in tops:
            for name in names:
                # The job's own directory occurs in the process's path; what follows is below it.
                _, mark, below = name.partition(f"/{top.name}/")
                if mark and ".." not in below and (top / below / "cgroup.events").exists():
                    found.add(top / below)
        return sorted(found)

    def close(self) -> None:
        """Close everything."""
        for file in self._files:
            os.close(file.descriptor)
        for directory in self._directories:
            directory.close()
        self._files, self._directories = [], []
        self._close_tasks()

    def _close_tasks(self) -> None:
        for file in (*self._states, *self.announcing.values()):
            os.close(file.descriptor)
        self._states, self._affinities, self.announcing = [], [], {}

    # -- looking ---------------------------------------------------------------------------------

    def changed(self, now: float) -> bool:
        """Whether anything differs from the look before."""
        try:
            changed = False
            for file in self._files:
                changed = file.changed() or changed
            for directory in self._directories:
                changed = directory.changed() or changed
            if now >= self._next_tasks or self.suspended:
                self._next_tasks = now + self._section.task_interval_s
                changed = self._tasks_changed(now) or changed
        except OSError:
            return True  # something has gone
        return changed or now >= self._next_refresh

    def announced(self, descriptor: int) -> bool:
        """Whether a file of which the kernel says so has changed; reading it ends the notice."""
        try:
            return self.announcing[descriptor].changed()
        except OSError:
            return True

    def _tasks_changed(self, now: float) -> bool:
        changed = False
        alive = []
        for pid, before in self._affinities:
            try:
                affinity = os.sched_getaffinity(pid)
            except OSError:
                continue
            changed = changed or affinity != before
            alive.append((pid, affinity))
        if len(alive) < len(self._affinities):
            # Others may have come; a job of short-lived processes is not read at every look.
            wait = _REPLACE_SECONDS if alive else _REPLACE_SECONDS / 4
            self._next_refresh = min(self._next_refresh, now + wait)
            self._affinities = alive
        stopped = self._any_stopped()
        if stopped != self._stopped:
            self._stopped = stopped
            changed = True
        return changed

    def _any_stopped(self) -> bool:
        """Whether one of the processes that were picked is stopped."""
        return any(state in _STOPPED for state in self._read_states())

    def _read_states(self) -> list[bytes]:
        """The state letters of the processes that were picked and live; proc(5)."""
        states = []
        for file in self._states:
            with contextlib.suppress(OSError):
                text = os.pread(file.descriptor, 512, 0)
                states.append(text.rpartition(b") ")[2][:1])
        return states

    # -- debouncing ------------------------------------------------------------------------------

    def touch(self, now: float, debounce: float) -> None:
        """Something has changed: act when it has been quiet for `debounce` seconds."""
        if self.due is None:
            self._since = now
        self.due = min(now + debounce, self._since + _LONGEST_DEBOUNCE * debounce)

    def rest(self) -> None:
        """It is being acted on."""
        self.due = None


def _spread(tasks: Sequence[Task], count: int) -> list[int]:
    """First processes of up to `count` tasks, from all over."""
    first: list[Any] = [task.pids[0] for task in tasks if task.pids]
    if len(first) <= count:
        return first
    return [first[position * len(first) // count] for position in range(count)]
