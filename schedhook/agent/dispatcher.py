"""What is done about an event: the journal is kept, observers are told, memory follows.

One `Dispatcher` serves the agent, the watcher and hooks that are handled in process. Events of one
job have to come one after the other; those of several jobs may come from several threads.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from schedhook.agent.followup import EventResult, JobFollower
from schedhook.journal.errors import JobLockedError, JournalError
from schedhook.journal.journal import Journal
from schedhook.journal.placements import KnownTask
from schedhook.journal.runs import JobRun
from schedhook.relocation.pipeline import relocate
from schedhook.roles.request import Relocate, Request
from schedhook.roles.scheduler import EventKind, Scheduler
from schedhook.values.config import Config
from schedhook.values.errors import PLUGIN_ERRORS, SchedhookError
from schedhook.values.log import get_logger
from schedhook.values.model import Event, Placement, Report
from schedhook.values.text import describe_error

if TYPE_CHECKING:
    from schedhook.plugins.manager import Plugins

_T = TypeVar("_T")

_WAIT_SECONDS = 30.0
_HOLD_SECONDS = 20.0
"""How long one hook of a job waits for another: a resume for the suspension before it, say."""

_log = get_logger()


class Dispatcher:
    """Handles events with one configuration, one set of plug-ins and one journal.

    `carry_out` stands in for the relocation pipeline.
    """

    def __init__(
        self,
        config: Config,
        plugins: Plugins,
        journal: Journal,
        *,
        root: Path = Path("/"),
        carry_out: Relocate | None = None,
    ) -> None:
        self.journal = journal
        self._config = config
        self._plugins = plugins
        self._root = root
        self._carry_out = carry_out or (
            lambda request: relocate(request, config, plugins, root=root)
        )
        self._adapters: dict[str, Scheduler] = {}
        self._lock = threading.Lock()
        self._unsaved: dict[tuple[str, str], dict[str, KnownTask]] = {}
        """What the journal could not take, so that a full disk costs the record, not the job."""
        self._waiting: dict[tuple[str, str], float] = {}
        """Since when work on a job has been put off, in seconds of time.monotonic()."""

    def adapter(self, name: str) -> Scheduler:
        """The scheduler's adapter, made once. PluginError where there is none of that name."""
        with self._lock:
            if name not in self._adapters:
                self._adapters[name] = self._plugins.scheduler(name).create(self._root)
            return self._adapters[name]

    def handle(self, event: Event, at: float) -> EventResult:
        """Do what the event asks for; `at` is when it happened, in seconds after the epoch.

        Never raises: what went wrong is in the result, and in the log.
        """
        try:
            handled = self._handle(event, at)
        except JobLockedError as error:
            # If its holder dies in mid-work, the look afterwards finds what it left.
            retry = self._config.agent.retry_s / 10
            handled = EventResult(summary=str(error), retry_after=retry)
        except SchedhookError as error:
            handled = EventResult(summary=f"failed: {error}", ok=False)
        except PLUGIN_ERRORS as error:  # adapters are plug-ins, and the agent goes on
            _log.error("event failed", job=event.job, point=event.point, exc_info=True)
            handled = EventResult(summary=f"failed: {describe_error(error)}", ok=False)
        quiet = _log.info if handled.acted else _log.debug
        write = quiet if handled.ok else _log.error
        write(
            "event handled",
            scheduler=event.scheduler,
            point=event.point,
            job=event.job,
            summary=handled.summary,
        )
        return handled

    def _handle(self, event: Event, at: float) -> EventResult:
        adapter = self.adapter(event.scheduler)
        kind = adapter.kind_of(event)
        if kind is not EventKind.LOOK:
            self._plugins.notify("schedhook_event", event=event)
        if event.point not in adapter.points_handled:
            return self._default(event, at, adapter, kind)
        if kind is EventKind.JOB_ENDED:
            own = self._adapters_own(event, adapter)
            handled = self._default(event, at, adapter, kind)
        elif kind in (EventKind.JOB_STARTED, EventKind.STEP_STARTED):
            handled = self._default(event, at, adapter, kind)
            own = self._adapters_own(event, adapter)
        else:
            return self._adapters_own(event, adapter)
        summary = f"{handled.summary}; {own.summary}"
        return replace(handled, summary=summary, ok=handled.ok and own.ok)

    def _default(self, event: Event, at: float, adapter: Scheduler, kind: EventKind) -> EventResult:
        if kind is EventKind.JOB_STARTED:
            return self._started(event, at)
        if kind is EventKind.JOB_ENDED:
            return self._ended(event, at)
        if kind is EventKind.IGNORE or (_is_watchers(event) and _handles(adapter, kind)):
            return EventResult(summary="nothing to do", acted=False)
        if not event.job:
            return self._look_at_all(adapter)
        return JobFollower(self, adapter, event).act(kind)

    def _adapters_own(self, event: Event, adapter: Scheduler) -> EventResult:
        """Let the adapter handle the event, with nobody else at work on the job."""
        own: Callable[[Event, Journal, Relocate], str] = adapter.handle  # type: ignore[attr-defined]
        held = (
            self.locked(event.scheduler, event.job, _HOLD_SECONDS) if event.job else nullcontext()
        )
        with held:
            try:
                return EventResult(summary=own(event, self.journal, self.recorder(event)))
            except SchedhookError as error:
                return EventResult(summary=f"failed: {error}", ok=False)

    def _started(self, event: Event, at: float) -> EventResult:
        summary = self.write_journal(
            "started",
            lambda: self.journal.runs.record_start(
                event.scheduler, event.job, event.user, at, hooked=not _is_watchers(event)
            ),
        )
        self._plugins.notify("schedhook_job_started", event=event)
        return EventResult(summary=summary)

    def _ended(self, event: Event, at: float) -> EventResult:
        if _is_watchers(event):
            run = self.ask(lambda: self.journal.runs.latest(event.scheduler, event.job), None)
            if run is not None and (run.hooked or run.ended is not None):
                # Between two steps a job may have no cgroup here; a hook will tell of its end.
                return EventResult(summary="no cgroup any more")
        with self._lock:
            self._unsaved.pop((event.scheduler, event.job), None)
            self._waiting.pop((event.scheduler, event.job), None)
        summary = self.write_journal(
            "ended", lambda: self.journal.runs.record_end(event.scheduler, event.job, at)
        )
        self._plugins.notify("schedhook_job_ended", event=event)
        return EventResult(summary=summary, more=self._neighbours(event))

    def write_journal(self, summary: str, write: Callable[[], object]) -> str:
        """Write in the journal; `summary`, and what went wrong."""
        try:
            write()
        except JournalError as error:
            _log.error("not in the journal", problem=str(error))
            return f"{summary}; not in the journal: {error}"
        return summary

    def _neighbours(self, event: Event) -> tuple[Event, ...]:
        """The end of a job has made room: others may go home, or where they could not go."""
        everybody = self._config.actions.repatriate
        none: tuple[JobRun, ...] = ()
        runs = self.ask(lambda: self.journal.runs.list_open(unsettled_only=not everybody), none)
        return tuple(
            Event(
                scheduler=run.scheduler,
                point=EventKind.LOOK.value,
                job=run.job,
                user=run.user,
                data={"because": f"job {event.job} ended", "repatriate": True},
            )
            for run in runs
            if (run.scheduler, run.job) != (event.scheduler, event.job)
        )

    def _look_at_all(self, adapter: Scheduler) -> EventResult:
        jobs = adapter.jobs()
        more = tuple(
            Event(scheduler=adapter.name, point=EventKind.LOOK.value, job=job) for job in jobs
        )
        return EventResult(summary=f"{len(more)} jobs to look at", more=more)

    # -- for one job's work ----------------------------------------------------------------------

    def relocate(self, request: Request, scheduler: str) -> Report:
        """Carry out a request and keep its report."""
        report = self._carry_out(request)
        self.write_journal("", lambda: self.journal.reports.add(report, scheduler, request.job))
        return report

    @contextmanager
    def locked(self, scheduler: str, job: str, wait: float = 0) -> Iterator[None]:
        """Meanwhile nobody else is at work on the job. JobLockedError where somebody still is after
        `wait` seconds; a journal that cannot be written costs the certainty, not the work."""
        with ExitStack() as stack:
            try:
                stack.enter_context(self.journal.locks.acquire(scheduler, job, wait))
            except JournalError as error:
                _log.error("not held", job=job, problem=str(error))
            yield

    def recorder(self, event: Event) -> Relocate:
        """The pipeline for an adapter to call: what it does is written down for the event's job."""

        def carry_out(request: Request) -> Report:
            request = request if request.job else replace(request, job=event.job)
            return self.relocate(request, event.scheduler)

        return carry_out

    def known(self, scheduler: str, job: str) -> dict[str, KnownTask]:
        """What is known of the job's tasks."""
        with self._lock:
            unsaved = self._unsaved.get((scheduler, job))
        if unsaved is not None:
            return unsaved
        return self.ask(lambda: self.journal.placements.known_tasks(scheduler, job), {})

    def ask(self, read: Callable[[], _T], default: _T) -> _T:
        """What the journal says, or `default` where it cannot be read."""
        try:
            return read()
        except JournalError as error:
            _log.error("journal not readable", problem=str(error))
            return default

    def waits(self, scheduler: str, job: str, reason: bool) -> bool:
        """Whether work on the job shall wait because of `reason`: not for ever."""
        with self._lock:
            if not reason:
                self._waiting.pop((scheduler, job), None)
                return False
            now = time.monotonic()
            if now - self._waiting.setdefault((scheduler, job), now) < _WAIT_SECONDS:
                return True
            del self._waiting[scheduler, job]
            return False

    def bindings(self, scheduler: str, job: str, tasks: Collection[str]) -> dict[str, Placement]:
        """How these tasks of the job were bound last; see Journal.bindings."""
        with self._lock:
            unsaved = self._unsaved.get((scheduler, job))
        if unsaved is not None:
            return {name: seen.last for name, seen in unsaved.items() if name in tasks}
        return self.ask(lambda: self.journal.placements.bindings(scheduler, job, tasks), {})

    def remember(
        self,
        scheduler: str,
        job: str,
        at_home: Mapping[str, Placement],
        away: Mapping[str, Placement],
    ) -> None:
        """Write tasks' placements down, all at one time; in memory where the journal fails.
        `at_home`: the memory lies there; `away`: it may lie there by now."""
        if not at_home and not away:
            return
        at = time.time()
        try:
            with self.journal.transaction():
                self.journal.placements.record(scheduler, job, at_home, at=at)
                self.journal.placements.record(scheduler, job, away, settled=False, at=at)
        except JournalError as error:
            _log.error("not in the journal", job=job, problem=str(error))
        else:
            with self._lock:
                if (scheduler, job) not in self._unsaved:
                    return
        known = self.known(scheduler, job)
        for tasks, settled in ((at_home, True), (away, False)):
            now = {
                name: KnownTask.after(known.get(name), its, settled) for name, its in tasks.items()
            }
            known = known | now
        with self._lock:
            self._unsaved[scheduler, job] = known

    @property
    def config(self) -> Config:
        return self._config

    @property
    def root(self) -> Path:
        return self._root


def _is_watchers(event: Event) -> bool:
    """Whether the watcher made the event up; else a hook told of it."""
    return event.data.get("seen_by") == "watch"


_SUSPENSION = frozenset({EventKind.SUSPENDED, EventKind.RESUMING, EventKind.RESUMED})


def _handles(adapter: Scheduler, kind: EventKind) -> bool:
    """Whether the adapter sees to suspension itself, told by hooks of its scheduler."""
    points = adapter.points_handled
    kinds = {adapter.kind_of(Event(scheduler=adapter.name, point=each, job="")) for each in points}
    return kind in _SUSPENSION and bool(kinds & _SUSPENSION)
