"""The agent: one process that gets events from hooks, and finds changes that no hook reports.

One thread waits for everything: for clients of the socket, for notifications from the kernel, for
the next look at the jobs. It never does anything that takes long. Worker threads handle the events,
those of one job one after the other.
"""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections.abc import Callable
from pathlib import Path

from schedhook.agent.clients import Client
from schedhook.agent.connections import Connections
from schedhook.agent.dispatcher import Dispatcher
from schedhook.agent.events import QueuedEvent, make_retry
from schedhook.agent.inbox import Inbox
from schedhook.agent.keep_local.looks import LocalLooks
from schedhook.agent.records import Records
from schedhook.agent.results import EventResult
from schedhook.agent.sockets import lock
from schedhook.agent.systemd import notify_systemd
from schedhook.agent.timers import DelayedEvents
from schedhook.agent.watcher import Watcher
from schedhook.agent.workers import WorkerPool
from schedhook.control.undo import recover
from schedhook.hook.message import parse_message
from schedhook.journal.errors import JournalError
from schedhook.values.config import Config
from schedhook.values.errors import PLUGIN_ERRORS, SchedhookError
from schedhook.values.log import get_logger
from schedhook.values.model import Event
from schedhook.values.text import describe_error

_log = get_logger()

_AFTER_END_SECONDS = 2.0
"""Delay between a job's end and what follows from it, since jobs often end in bursts."""
_STOP_SECONDS = 60.0
"""How long running relocations may take once the agent is told to stop."""
_PRUNE_SECONDS = 3600.0
_RECOVER_SECONDS = 5.0
"""The interval between looks for relocations that were killed."""
_JOURNAL_SECONDS = 0.5
"""How long the agent's own thread waits for other writers of the journal."""


class Agent:
    """Runs until `stop` is called.

    Without `path` it has no socket and only watches. `exporter` is entered once this is known to be
    the only agent, and left at the end.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        config: Config,
        *,
        path: Path | None = None,
        spool: Path | None = None,
        watcher: Callable[[Callable[[Event], None], select.epoll], Watcher] | None = None,
        exporter: contextlib.AbstractContextManager[None] | None = None,
    ) -> None:
        self._dispatcher = dispatcher
        self._config = config
        self._path = path
        self._exporter = exporter or contextlib.nullcontext()
        self._journal = dispatcher.journal.reopen(_JOURNAL_SECONDS)
        self._poller = select.epoll()
        self._wakeup = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._poller.register(self._wakeup, select.EPOLLIN)
        self._connections = Connections(self._poller)
        self._inbox = Inbox(dispatcher, self._journal, spool)
        self._workers = WorkerPool(config.agent.workers, self._handle, self._wake)
        self._delayed = DelayedEvents()
        self._watcher = watcher(self._submit, self._poller) if watcher else None
        self._local = LocalLooks(
            dispatcher.keeper, config, Records(self._journal), self._submit, dispatcher.root
        )
        self._next_prune = self._next_recovery = 0.0
        self._stopping = False

    # -- start and stop --------------------------------------------------------------------------

    def run(self) -> None:
        """Serve until `stop` is called.

        Raise SchedhookError if another agent has the socket, or if it cannot be created.
        """
        with contextlib.ExitStack() as stack:
            stack.callback(self._close)
            if self._path is not None:
                stack.enter_context(lock(self._path))
                self._connections.listen(self._path)
            stack.enter_context(self._exporter)
            self._recover()
            notify_systemd("READY=1")
            _log.info("agent started", socket=str(self._path) if self._path else None)
            self._loop()
            notify_systemd("STOPPING=1")
            self._workers.stop(_STOP_SECONDS)
            self._collect_results()
            _log.info("agent stopped")

    def stop(self) -> None:
        """Make `run` return soon. May be called from a signal handler or another thread."""
        self._stopping = True
        self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(OSError):
            os.eventfd_write(self._wakeup, 1)

    def _recover(self) -> None:
        """Continue what an earlier agent left unfinished."""
        self._roll_back(time.monotonic())
        for queued in self._inbox.recover_pending():
            self._workers.put(queued)
        self._read_spool()

    def _roll_back(self, now: float) -> None:
        """Undo what relocations left that were killed along with their rollback helpers."""
        self._next_recovery = now + _RECOVER_SECONDS
        if found := recover():
            _log.warning("rolled back relocations that were killed", relocations=found)

    def _close(self) -> None:
        self._connections.close()
        if self._watcher is not None:
            self._watcher.close()
        self._local.close()
        self._poller.close()
        os.close(self._wakeup)
        if self._journal is not self._dispatcher.journal:
            self._journal.close()

    # -- the loop --------------------------------------------------------------------------------

    def _loop(self) -> None:
        next_tick = 0.0
        while not self._stopping:
            now = time.monotonic()
            if now >= next_tick:
                next_tick = self._tick(now)
            next_event = self._delayed.next_due()
            wake = next_tick if next_event is None else min(next_tick, next_event)
            self._poll(max(0.0, wake - time.monotonic()))
            for event in self._delayed.pop_due(time.monotonic()):
                self._submit(event)

    def _tick(self, now: float) -> float:
        """Do what is done about once a second; return when to be called again."""
        more = self._read_spool()
        wake = now if more else now + self._config.watch.interval_s
        self._workers.grow()
        self._connections.tick(now)
        if now >= self._next_prune:
            self._next_prune = now + _PRUNE_SECONDS
            self._prune_journal()
        if now >= self._next_recovery:
            self._roll_back(now)
        wake = min(wake, self._next_recovery)
        if self._watcher is None:
            return wake
        wake = min(wake, self._watcher.tick(now))
        self._local.tick(now, self._watcher.watched)
        return wake

    def _poll(self, timeout: float) -> None:
        for descriptor, _ in self._poller.poll(timeout):
            if descriptor == self._wakeup:
                with contextlib.suppress(OSError):
                    os.eventfd_read(self._wakeup)
                self._collect_results()
            elif descriptor in self._connections:
                for client, raw in self._connections.receive(descriptor):
                    self._receive(client, raw)
            elif self._watcher is not None:
                self._watcher.notified(descriptor, time.monotonic())

    def _prune_journal(self) -> None:
        kept = self._config.journal
        with contextlib.suppress(JournalError):
            self._journal.prune(kept.keep_days, kept.keep_per_job)

    # -- events in -------------------------------------------------------------------------------

    def _receive(self, client: Client, raw: bytes) -> None:
        """Accept a client's message, and answer `ok` or why it was refused."""
        try:
            message = parse_message(raw)
            queued = self._inbox.accept_message(message, raw, client)
        except SchedhookError as error:
            self._connections.answer_and_drop(client, str(error))
        except PLUGIN_ERRORS as error:  # an adapter's bug must not end the agent
            # A user who has found such a bug must not fill the log with it.
            write = _log.error if client.trusted else _log.debug
            write("cannot read event", exc_info=True)
            self._connections.answer_and_drop(client, describe_error(error))
        else:
            if client.trusted:
                self._scan_soon()
            if queued is not None:
                self._workers.put(queued)
            client.answer("ok")
            if not message.wait:
                self._connections.drop(client)

    def _read_spool(self) -> bool:
        """Accept events from the spool, and return whether more are left."""
        accepted, more = self._inbox.read_spool()
        if accepted:
            self._scan_soon()
        for queued in accepted:
            self._workers.put(queued)
        return more

    def _submit(self, event: Event) -> None:
        """Handle an event that is only kept in memory and that no client waits for."""
        self._workers.put(QueuedEvent(event, time.time()))

    def _scan_soon(self) -> None:
        """Look for new jobs soon: an event often means that a job has started or ended."""
        if self._watcher is not None:
            self._watcher.scan_soon()

    # -- events done -----------------------------------------------------------------------------

    def _handle(self, queued: QueuedEvent) -> EventResult:
        """Handle an event, in a worker's thread."""
        result = self._dispatcher.handle(queued.event, queued.at)
        self._inbox.record_result(queued, result)
        return result

    def _collect_results(self) -> None:
        """Answer the clients that wait, and schedule the events that follow."""
        now = time.monotonic()
        for queued, result in self._workers.finished():
            self._local.finished(queued.event)
            if queued.client is not None:
                self._connections.answer_and_drop(queued.client, result.summary)
            for event in result.more:
                self._delayed.add(event, now + _AFTER_END_SECONDS)
            if result.retry_after is not None:
                self._delayed.add(make_retry(queued.event), now + result.retry_after)
