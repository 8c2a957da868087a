"""The watcher: finds changes of jobs that no hook reports.

While nothing happens it costs a few short reads per job and second, through files that stay open:
of the effective cpuset and the number of steps, and less often of tasks' affinity and state. The
kernel itself notifies of frozen jobs (cgroup.events, by poll). After a change, the watcher waits
until the job has settled; then one `look` event tells the agent to compare the job with the
journal.
"""

from __future__ import annotations

import contextlib
import select
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from schedhook.agent.events import SEEN_BY_WATCHER
from schedhook.agent.open_files import ParentDirectories
from schedhook.agent.watched_job import WatchedJob
from schedhook.host.rlimits import raise_file_limit
from schedhook.roles.scheduler import EventKind, Scheduler, check_job
from schedhook.values.config import WatchSection
from schedhook.values.errors import PLUGIN_ERRORS
from schedhook.values.log import get_logger
from schedhook.values.model import Event
from schedhook.values.text import describe_error

_log = get_logger()

_SCAN_SECONDS = 2.0
"""How soon jobs are listed again while there are none, and after one has come or gone.

A new job may have its cgroup before it has a process.
"""
_RESCAN_SECONDS = 30.0
"""The same while nothing happens: a change of the directories above them starts a scan earlier."""
_GONE_SECONDS = 10.0
"""How long a job must have no cgroup before its end is reported."""
_NEW_PER_SCAN = 10


class Watcher:
    """Watches the jobs of some adapters. Not thread-safe. Times are of time.monotonic().

    `known` are the jobs, as (scheduler, job), that ran when they were last looked at: the end of
    those that have no cgroup any more is reported, too. `emit` gets the events. Files whose changes
    the kernel notifies of are registered with `poller`; the poller's owner calls `notified` for
    each of them that is ready.
    """

    def __init__(
        self,
        adapters: Iterable[Scheduler],
        section: WatchSection,
        emit: Callable[[Event], None],
        poller: select.epoll | None = None,
        root: Path = Path("/"),
        known: Iterable[tuple[str, str]] = (),
    ) -> None:
        self._adapters = tuple(adapters)
        self._section = section
        self._emit = emit
        self._poller = poller
        self._root = root
        self._jobs: dict[tuple[str, str], WatchedJob] = {}
        self._by_descriptor: dict[int, WatchedJob] = {}
        self._gone: dict[tuple[str, str], float] = {}
        """Jobs that have lost their cgroup, and when; their end is not reported yet."""
        self._known = set(known)
        """Jobs that have not been looked for yet."""
        self._next_scan = 0.0
        self._parents = ParentDirectories()
        self._failed: set[str] = set()
        """Adapters whose last failure was logged."""
        raise_file_limit()

    @property
    def jobs(self) -> Sequence[tuple[str, str]]:
        """(scheduler, job) of each watched job."""
        return tuple(self._jobs)

    @property
    def watched(self) -> Iterable[WatchedJob]:
        """The jobs that are watched."""
        return self._jobs.values()

    def tick(self, now: float) -> float:
        """Look at everything that is due; return when to be called again."""
        # Always asked, so that a change that one scan has seen does not start another.
        if (is_changed := self._parents.changed()) or now >= self._next_scan:
            self._next_scan = self._scan(now, is_changed=is_changed)
        wake = now + self._section.interval_s
        for watched in list(self._jobs.values()):
            if watched.changed(now):
                watched.debounce.touch(now)
            if watched.debounce.due is not None and now >= watched.debounce.due:
                self._act(watched, now)
            if watched.debounce.due is not None:
                wake = min(wake, watched.debounce.due)
        return wake

    def scan_soon(self) -> None:
        """List jobs at the next tick: one may be about to start or to end."""
        self._next_scan = 0.0

    def notified(self, descriptor: int, now: float) -> None:
        """Look at a file that the kernel has reported as changed."""
        watched = self._by_descriptor.get(descriptor)
        if watched is not None and watched.notified(descriptor):
            watched.debounce.touch(now)

    def close(self) -> None:
        """Close all files."""
        for watched in list(self._jobs.values()):
            self._forget(watched)
        self._parents.close()

    # -- jobs that start and end -----------------------------------------------------------------

    def _scan(self, now: float, *, is_changed: bool) -> float:
        """Compare the watched jobs with those that exist; return when to scan again."""
        new = 0
        self._parents.close_removed()
        for adapter in self._adapters:
            try:
                present = set(adapter.jobs())
            except PLUGIN_ERRORS as error:  # an adapter is a plug-in
                self._log_failure(adapter.name, error)
                continue
            self._failed.discard(adapter.name)
            known = {key for key in self._known if key[0] == adapter.name}
            self._gone |= {key: now for key in known if key[1] not in present}
            self._known -= known
            self._forget_missing(adapter.name, present, now)
            for job in sorted(present):
                if (adapter.name, job) not in self._jobs and new < _NEW_PER_SCAN:
                    new += 1
                    self._begin(adapter, job, now)
        self._report_gone(now)
        if new >= _NEW_PER_SCAN:
            return now  # there may be more than one tick may read
        is_quiet = self._jobs and not self._gone and not is_changed
        pause = _RESCAN_SECONDS if is_quiet else _SCAN_SECONDS
        return now + max(pause, self._section.interval_s)

    def _begin(self, adapter: Scheduler, job: str, now: float) -> None:
        """Start to watch a job."""
        try:
            check_job(job)
            watched = WatchedJob(adapter, job, self._section, self._root)
            watched.open(now)
            self._parents.add(adapter.cgroups(job))
        except PLUGIN_ERRORS as error:
            self._log_failure(adapter.name, error)
            return
        self._jobs[watched.key] = watched
        self._register(watched)
        if self._gone.pop(watched.key, None) is None:
            self._report(watched, EventKind.JOB_STARTED)
        # The job may have changed before it was watched.
        watched.debounce.act_now(now)

    def _forget_missing(self, scheduler: str, present: set[str], now: float) -> None:
        for key in [key for key in self._jobs if key[0] == scheduler and key[1] not in present]:
            self._forget(self._jobs[key])
            self._gone[key] = now

    def _forget(self, watched: WatchedJob) -> None:
        self._unregister(watched)
        watched.close()
        self._jobs.pop(watched.key, None)

    def _report_gone(self, now: float) -> None:
        for key in [key for key, since in self._gone.items() if now - since >= _GONE_SECONDS]:
            del self._gone[key]
            scheduler, job = key
            point = EventKind.JOB_ENDED.value
            self._emit(Event(scheduler=scheduler, point=point, job=job, data=SEEN_BY_WATCHER))

    def _register(self, watched: WatchedJob) -> None:
        if self._poller is None:
            return
        for descriptor in watched.notifying:
            # Plain files, which stand for cgroups in tests, cannot be polled.
            with contextlib.suppress(OSError):
                self._poller.register(descriptor, select.EPOLLPRI | select.EPOLLERR)
                self._by_descriptor[descriptor] = watched

    def _unregister(self, watched: WatchedJob) -> None:
        for descriptor in watched.notifying:
            if self._by_descriptor.pop(descriptor, None) is not None and self._poller is not None:
                with contextlib.suppress(OSError, ValueError):
                    self._poller.unregister(descriptor)

    # -- jobs that change ------------------------------------------------------------------------

    def _act(self, watched: WatchedJob, now: float) -> None:
        """Read the job's tasks again, and report what has changed."""
        watched.debounce.reset(now)
        try:
            self._unregister(watched)
            try:
                watched.read_tasks(now)
            finally:
                self._register(watched)
            suspended = watched.adapter.suspended(watched.job)
        except PLUGIN_ERRORS as error:
            self._log_failure(watched.adapter.name, error)
            self.scan_soon()
            return
        if suspended != watched.suspended:
            watched.suspended = suspended
            self._report(watched, EventKind.SUSPENDED if suspended else EventKind.RESUMED)
        self._report(watched, EventKind.LOOK)

    def _report(self, watched: WatchedJob, kind: EventKind) -> None:
        started = kind is EventKind.JOB_STARTED
        self._emit(
            Event(
                scheduler=watched.adapter.name,
                point=kind.value,
                job=watched.job,
                user=watched.adapter.owner(watched.job) if started else None,
                data=SEEN_BY_WATCHER,
            )
        )

    def _log_failure(self, scheduler: str, error: BaseException) -> None:
        if scheduler not in self._failed:  # once, not every second
            self._failed.add(scheduler)
            problem = describe_error(error)
            _log.error("cannot watch jobs", scheduler=scheduler, problem=problem)
