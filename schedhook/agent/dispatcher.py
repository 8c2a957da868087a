"""Routing of events: each is recorded, plug-ins are notified, and the work on jobs begins.

One `Dispatcher` serves the agent, the watcher and hooks whose events are handled without an agent.
Events of one job must be handled one after the other; those of several jobs may be handled in
several threads at a time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from schedhook.agent.budget import MoveBudget
from schedhook.agent.events import CHOICE
from schedhook.agent.followup import follow_up, lock_seconds
from schedhook.agent.held_jobs import HeldJobs
from schedhook.agent.job import Job, is_from_hook
from schedhook.agent.keep_local.record import write_end
from schedhook.agent.keeper.keeper import Keeper, Rules
from schedhook.agent.overrides import StartingSteps
from schedhook.agent.records import Records
from schedhook.agent.results import EventResult
from schedhook.agent.suspensions import Suspensions
from schedhook.jobs.choice import actions_for, configured_actions, record_choice
from schedhook.jobs.notes import journal_notes
from schedhook.journal.errors import JobLockedError
from schedhook.journal.journal import Journal
from schedhook.relocation.pipeline import relocate
from schedhook.roles.request import Relocate, Request
from schedhook.roles.scheduler import EventKind, Scheduler
from schedhook.values.actions import Repatriate
from schedhook.values.config import Config
from schedhook.values.errors import PLUGIN_ERRORS, SchedhookError
from schedhook.values.log import get_logger
from schedhook.values.model import Event, Report
from schedhook.values.text import describe_error

if TYPE_CHECKING:
    from schedhook.plugins.manager import Plugins

_T = TypeVar("_T")

_log = get_logger()


class Dispatcher:
    """Handles events with one configuration, one set of plug-ins and one journal.

    `carry_out` and `rebalance` are used in place of the relocation pipeline.
    """

    def __init__(
        self,
        config: Config,
        plugins: Plugins,
        journal: Journal,
        *,
        root: Path = Path("/"),
        carry_out: Relocate | None = None,
        rebalance: Callable[[Sequence[Request]], Sequence[Report]] | None = None,
    ) -> None:
        self.journal = journal
        self._records = Records(journal)
        self._config = config
        self._plugins = plugins
        self.root = root
        self._carry_out = carry_out or (
            lambda request: relocate(request, config, plugins, root=root)
        )
        self._rebalance = rebalance or self._rebalance_here
        self._held = HeldJobs()
        self._starting = StartingSteps()
        self._suspensions = Suspensions()
        self.keeper = Keeper(Rules.read(config))
        self._budget = MoveBudget(config.watch)
        self._adapters: dict[str, Scheduler] = {}
        self._lock = threading.Lock()
        plugins.notes = journal_notes(journal)

    def adapter(self, name: str) -> Scheduler:
        """Return the scheduler's adapter, made once; raise PluginError if there is none."""
        with self._lock:
            if name not in self._adapters:
                self._adapters[name] = self._plugins.adapter(name, self.root)
            return self._adapters[name]

    def ask(self, read: Callable[[], _T], default: _T) -> _T:
        """Return what `read` finds in the journal, or `default` if it cannot be read."""
        return self._records.ask(read, default)

    def handle(self, event: Event, at: float) -> EventResult:
        """Do what the event asks for; `at` is when it happened, in seconds after the epoch.

        Raise nothing: what went wrong is in the result, and in the log.
        """
        try:
            handled = self._route(event, at)
        except JobLockedError as error:
            # If the lock's holder dies, the next look finds what it left.
            retry = self._config.agent.retry_s / 10
            handled = EventResult(summary=str(error), acted=False, retry_after=retry)
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

    def _route(self, event: Event, at: float) -> EventResult:
        adapter = self.adapter(event.scheduler)
        kind = adapter.kind_of(event)
        suspended_s = self._suspensions.note(event, kind)
        if kind is not EventKind.LOOK:
            self._plugins.notify("schedhook_event", event=event)
        if kind is EventKind.JOB_STARTED:
            return self._job_started(event, at, adapter)
        if kind is EventKind.JOB_ENDED:
            return self._job_ended(event, at)
        if kind is EventKind.IGNORE:
            return EventResult(summary="nothing to do", acted=False)
        if not event.job:
            return self._look_at_all(event, at, adapter)
        if CHOICE in event.data:
            record_choice(adapter, event.job, event.data[CHOICE])
        if is_from_hook(event):
            adapter.record_event(event)
        with self._held.hold(event.scheduler, event.job, lock_seconds(event, kind)):
            return follow_up(self._job(event, kind, adapter, suspended_s), self._starting)

    def _job(
        self, event: Event, kind: EventKind, adapter: Scheduler, suspended_s: float = 0.0
    ) -> Job:
        actions = actions_for(adapter, event.job, self._config.actions, record=True)
        return Job(
            event=event,
            kind=kind,
            adapter=adapter,
            actions=actions,
            records=self._records,
            relocate=self._recorder(event, gentle=actions.is_gentle or None),
            rebalance=self._rebalance_together,
            open_other=self._open_other,
            retry_s=self._config.agent.retry_s,
            budget=self._budget,
            suspended_s=suspended_s,
            keeper=self.keeper,
            root=self.root,
        )

    @contextmanager
    def _open_other(self, scheduler: str, name: str) -> Iterator[Job]:
        """Open a job that no event is about, held for the block. Raise JobLockedError."""
        event = Event(
            scheduler=scheduler, point=EventKind.LOOK.value, job=name, data={"seen_by": "agent"}
        )
        with self._held.hold(scheduler, name), self._records.locked(scheduler, name):
            yield self._job(event, EventKind.LOOK, self.adapter(scheduler))

    def _recorder(self, event: Event, gentle: bool | None) -> Relocate:
        """Return the pipeline for the work on this event: it records its reports for the job."""

        def carry_out(request: Request) -> Report:
            own = request.gentle or gentle
            request = replace(request, job=request.job or event.job, gentle=own)
            report = self._carry_out(request)
            if not request.dry_run:
                self._record(report, event.scheduler, request.job)
            return report

        return carry_out

    def _rebalance_together(self, requests: Sequence[Request]) -> Sequence[Report]:
        """Bring memory of several jobs home together; record a report where some has moved."""
        reports = self._rebalance(requests)
        for request, report in zip(requests, reports, strict=True):
            if report.bytes_moved:  # that it does not fit is no news
                self._record(report, request.scheduler or "", request.job)
        return reports

    def _rebalance_here(self, requests: Sequence[Request]) -> Sequence[Report]:
        # Not at the top: a hook imports this module, and never rebalances.
        from schedhook.relocation.rebalance import rebalance  # noqa: PLC0415

        return rebalance(requests, self._config, self._plugins, root=self.root).reports

    def _record(self, report: Report, scheduler: str, job: str | None) -> None:
        self._records.write(lambda: self.journal.reports.add(report, scheduler, job))

    # -- start and end of jobs -------------------------------------------------------------------

    def _job_started(self, event: Event, at: float, adapter: Scheduler) -> EventResult:
        hooked = not _is_watchers(event)
        problem = self._records.write(
            lambda: self.journal.runs.record_start(
                event.scheduler, event.job, event.user, at, hooked=hooked
            )
        )
        if is_from_hook(event):
            adapter.record_event(event)
        if granted := adapter.granted(event.job):
            known = self._records.known(event.scheduler, event.job)
            new = {task: placement for task, placement in granted.items() if task not in known}
            self._records.remember(event.scheduler, event.job, new, {})
        self._plugins.notify("schedhook_job_started", event=event)
        return EventResult(summary="; ".join(filter(None, ("started", problem))))

    def _job_ended(self, event: Event, at: float) -> EventResult:
        if _is_watchers(event):
            run = self._records.run(event.scheduler, event.job)
            if run is not None and (run.hooked or run.ended is not None):
                # Between two steps a job may have no cgroup here; a hook will report its end.
                return EventResult(summary="no cgroup any more")
        self._records.forget(event.scheduler, event.job)
        self._starting.forget(event.scheduler, event.job)
        key = (event.scheduler, event.job)
        self._budget.forget(key)
        if state := self.keeper.forget(key):
            write_end(self._records, key, state, at)
        problem = self._records.write(
            lambda: self.journal.runs.record_end(event.scheduler, event.job, at)
        )
        self._plugins.notify("schedhook_job_ended", event=event)
        summary = "; ".join(filter(None, ("ended", problem)))
        return EventResult(summary=summary, more=self._look_at_others(event))

    def _look_at_others(self, event: Event) -> tuple[Event, ...]:
        """Return an event for each job that the end of this one has made room for.

        Those are jobs whose memory could not go where they are, and all others if configured.
        """
        unsettled = self._records.open_runs(unsettled_only=True)
        everyone = {
            run: self._may_repatriate(run.scheduler, run.job) for run in self._records.open_runs()
        }
        return tuple(
            Event(
                scheduler=run.scheduler,
                point=EventKind.LOOK.value,
                job=run.job,
                user=run.user,
                data={
                    "seen_by": "agent",
                    "because": f"job {event.job} ended",
                    "repatriate": repatriates,
                },
            )
            for run, repatriates in everyone.items()
            if (repatriates or run in unsettled)
            and (run.scheduler, run.job) != (event.scheduler, event.job)
        )

    def _may_repatriate(self, scheduler: str, job: str) -> bool:
        """Return whether the job's memory comes home when another job ends.

        Its own choice is read only if the agent then looks at it.
        """
        try:
            actions = configured_actions(self.adapter(scheduler), job, self._config.actions)
        except PLUGIN_ERRORS as error:
            _log.error("cannot look at job", job=job, problem=describe_error(error))
            return False
        return actions.repatriate is Repatriate.ALL

    # -- all jobs --------------------------------------------------------------------------------

    def _look_at_all(self, event: Event, at: float, adapter: Scheduler) -> EventResult:
        """Return an event for each job here, and for those whose end no hook has reported."""
        if is_from_hook(event):
            adapter.record_event(event)
        here = set(adapter.jobs())
        told = adapter.jobs_told(event)
        gone: set[str] = set()
        if told is not None:
            here |= told
            runs = self._records.open_runs(adapter.name)
            gone = {run.job for run in runs if run.started < at} - here
        by_agent: dict[str, Any] = {"seen_by": "agent", "because": event.point}
        ends = (
            Event(scheduler=adapter.name, point=EventKind.JOB_ENDED.value, job=job, data=by_agent)
            for job in sorted(gone)
        )
        data = by_agent | {"repatriate": True}
        looks = (
            Event(scheduler=adapter.name, point=EventKind.LOOK.value, job=job, data=data)
            for job in sorted(here)
        )
        summary = f"{len(here)} jobs to look at"
        if gone:
            summary += f"; {', '.join(sorted(gone))} ended without notice"
        return EventResult(summary=summary, more=(*ends, *looks))


def _is_watchers(event: Event) -> bool:
    """Return whether the event comes from the watcher, not from a hook."""
    return event.data.get("seen_by") == "watch"
