"""Accept events, and record what came of them.

An event is in the journal before its hook is answered `ok`, or in the spool while another process
keeps the journal locked. What one agent has not handled is handled by the next one.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from schedhook.agent.clients import Client
from schedhook.agent.dispatcher import Dispatcher
from schedhook.agent.events import SEEN_BY_WATCHER, QueuedEvent, read_event, read_users_event
from schedhook.agent.owners import JobOwners
from schedhook.agent.parking import PARKED
from schedhook.agent.results import EventResult
from schedhook.agent.spool_reader import SpoolReader
from schedhook.hook.message import Message, parse_message
from schedhook.host.processes import boot_time
from schedhook.journal.errors import JournalBusyError, JournalError
from schedhook.journal.journal import Journal
from schedhook.roles.scheduler import EventKind
from schedhook.values.errors import PLUGIN_ERRORS, SchedhookError
from schedhook.values.log import get_logger
from schedhook.values.model import Event

_CHANGES = (EventKind.SUSPENDED.value, EventKind.RESUMED.value)
"""What the watcher sees of a job, and the journal keeps whatever came of it."""

_log = get_logger()

_SPOOL_SECONDS = 0.2
"""How long the spool is read before the agent's loop goes on."""


class Inbox:
    """Keeps events until they are handled.

    All methods but `record_result` are for the agent's own thread, which must not wait long for the
    journal: `journal` is a connection that gives up soon.
    """

    def __init__(self, dispatcher: Dispatcher, journal: Journal, spool: Path | None) -> None:
        self._dispatcher = dispatcher
        self._journal = journal
        self._owners = JobOwners(journal)
        self._spool = SpoolReader(spool) if spool is not None else None

    def accept_message(self, message: Message, raw: bytes, client: Client) -> QueuedEvent | None:
        """Keep the event of a client's message, and return it to be handled.

        Return None if it need not be handled now: it was sent before, or it is in the spool and the
        client does not wait for its result. Raise SchedhookError if the event is refused.
        """
        adapter = self._dispatcher.adapter(message.scheduler)
        waiting = client if message.wait else None
        if client.trusted:
            return self._keep(read_event(message, adapter), message.at, raw, waiting)
        # Not written to the journal: only root's events are, and the next agent looks anyway.
        owner = partial(self._owners.owner, adapter)
        event = read_users_event(message, adapter, client.uid, owner)
        return QueuedEvent(event, time.time(), client=waiting)

    def read_spool(self) -> tuple[list[QueuedEvent], bool]:
        """Accept events from the spool; return them, and whether more are left.

        Reading stops after a fraction of a second, and while the journal is locked.
        """
        accepted: list[QueuedEvent] = []
        if self._spool is None:
            return accepted, False
        end = time.monotonic() + _SPOOL_SECONDS
        try:
            if not self._spool.has_changed():
                return accepted, False
            for path, raw in self._spool.messages():
                try:
                    accepted += self._accept_spooled(path, raw)
                except JournalBusyError:
                    self._spool.read_again()
                    return accepted, False
                self._spool.remove(path)
                if time.monotonic() > end:
                    self._spool.read_again()
                    return accepted, True
        except FileNotFoundError:
            pass
        except (OSError, SchedhookError) as error:
            _log.error("cannot read the spool", problem=str(error))
        return accepted, False

    def recover_pending(self) -> Iterator[QueuedEvent]:
        """Yield what an earlier agent left, and close the runs of jobs from before a reboot."""
        journal = self._dispatcher.journal
        try:
            for run in journal.runs.list_open():
                if not run.is_of_this_boot():
                    journal.runs.record_end(run.scheduler, run.job, max(boot_time(), run.started))
            for number, at, event in journal.events.list_unfinished():
                _log.info("event is handled after a restart", job=event.job, point=event.point)
                yield QueuedEvent(event, at, number)
            for run in journal.notes.runs_with(PARKED):
                # The job may have been resumed while no agent ran.
                resumed = Event(
                    scheduler=run.scheduler,
                    point=EventKind.RESUMED.value,
                    job=run.job,
                    data={**SEEN_BY_WATCHER, "again": True},
                )
                yield QueuedEvent(resumed, time.time())
        except JournalError as error:
            _log.error("cannot read the journal", problem=str(error))

    def record_result(self, queued: QueuedEvent, result: EventResult) -> None:
        """Record an event as handled. Called in a worker's thread."""
        journal, event, receipt = self._dispatcher.journal, queued.event, queued.receipt
        # That a job went on is worth a row even if a look brought its memory back before.
        seen = event.data.get("seen_by") is not None
        is_change = event.data.items() >= SEEN_BY_WATCHER.items() and event.point in _CHANGES
        try:
            if isinstance(receipt, int):
                journal.events.finish(receipt, result.summary)
            elif receipt is not None or (seen and (result.acted or is_change)):
                with journal.transaction():
                    number = journal.events.put(event, queued.at)
                    if number is not None:
                        journal.events.finish(number, result.summary)
        except JournalError as error:
            _log.error("cannot record event in the journal", job=event.job, problem=str(error))
        if self._spool is not None and isinstance(receipt, Path):
            self._spool.remove(receipt)

    def _keep(
        self, event: Event, at: float, raw: bytes, client: Client | None
    ) -> QueuedEvent | None:
        """Write an event to the journal, or its message to the spool if the journal is locked."""
        try:
            return self._write_journal(event, at, client)
        except JournalBusyError as error:
            problem = str(error)
        path = self._spool.write(raw) if self._spool is not None else None
        if self._spool is None or path is None:
            _log.error("event kept only in memory", job=event.job, problem=problem)
            return QueuedEvent(event, at, client=client)
        _log.warning("event kept in the spool", job=event.job, problem=problem)
        if client is None:
            return None  # it is handled once the journal can be written
        self._spool.claim(path)
        return QueuedEvent(event, at, path, client)

    def _accept_spooled(self, path: Path, raw: bytes) -> list[QueuedEvent]:
        """Return the event of a file in the spool; nothing if it is damaged or was sent before.

        Raise JournalBusyError if the file must stay for now.
        """
        try:
            message = parse_message(raw)
            event = read_event(message, self._dispatcher.adapter(message.scheduler))
            queued = self._write_journal(event, message.at, None)
        except JournalBusyError:
            raise
        except PLUGIN_ERRORS as error:  # one bad file must not stop the others
            _log.error("spooled event dropped", file=str(path), problem=str(error))
            return []
        return [queued] if queued is not None else []

    def _write_journal(self, event: Event, at: float, client: Client | None) -> QueuedEvent | None:
        """Write an event to the journal and return it to be handled.

        Return None if the journal has it already and no client waits. An event that cannot be
        written is handled all the same. Raise JournalBusyError if the journal is locked.
        """
        number = None
        try:
            number = self._journal.events.put(event, at)
        except JournalBusyError:
            raise
        except JournalError as error:
            _log.error("cannot record event in the journal", job=event.job, problem=str(error))
        else:
            if number is None:
                _log.info("event was sent twice", job=event.job, point=event.point)
                if client is None:
                    return None
        return QueuedEvent(event, at, number, client)
