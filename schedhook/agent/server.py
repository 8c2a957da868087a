"""The agent: one process that takes events from hooks, and finds out what no hook tells.

One thread does all the waiting: for clients of the socket, for the kernel's notices, for the next
look at the jobs. It never does anything that takes long. A few others handle events, one job's one
after the other. An event is in the journal before its hook hears `ok`, or in the spool while others
keep the journal locked; what was not done by the end of the process is done by the next one.
"""

from __future__ import annotations

import contextlib
import errno
import heapq
import itertools
import os
import select
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from schedhook.agent.clients import Client, Gate
from schedhook.agent.dispatcher import Dispatcher
from schedhook.agent.events import read_event, read_users_event
from schedhook.agent.followup import PARKED, EventResult
from schedhook.agent.sockets import listen, lock
from schedhook.agent.watcher import SEEN_BY, Watcher
from schedhook.agent.workers import Receipt, WorkerPool
from schedhook.control.rollback import recover
from schedhook.hook import delivery
from schedhook.hook.message import Message, parse_message
from schedhook.hook.spool import read_spool
from schedhook.host.processes import boot_time
from schedhook.journal.journal import JournalBusyError, JournalError
from schedhook.roles.scheduler import EventKind, Scheduler
from schedhook.values.config import Config
from schedhook.values.errors import PLUGIN_ERRORS, SchedhookError
from schedhook.values.log import get_logger
from schedhook.values.model import Event

_log = get_logger()

_OWNER_SECONDS = 10.0
"""How long it is believed whose a job is, as far as its processes tell: looking is work."""
_MOST_OWNERS = 1000
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_MORE_SECONDS = 2.0
"""Before what follows from a job's end; ends come in bursts."""
_STOP_SECONDS = 60.0
"""How long relocations that are under way may take when the agent is told to stop."""
_PRUNE_SECONDS = 3600.0
_SPOOL_SECONDS = 0.2
"""How long the spool is read before others have their turn."""
_TICK_NS = 1_000_000_000
"""More than a file system's clock may stand still: what has changed since may look the same."""
_PATIENCE = 0.5
"""Seconds that hooks wait for others to write the journal."""


class Agent:
    """Serves until `stop`. Without `path` it has no socket: it only watches. `beside` is entered
    once this is known to be the only agent, and left at the end."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        config: Config,
        *,
        path: Path | None = None,
        spool: Path | None = None,
        watcher: Callable[[Callable[[Event], None], select.epoll], Watcher] | None = None,
        beside: contextlib.AbstractContextManager[None] | None = None,
    ) -> None:
        self._dispatcher = dispatcher
        self._journal = dispatcher.journal.beside(_PATIENCE)
        """For the thread that must not wait."""
        self._config = config
        self._path = path
        self._spool = spool
        self._beside = beside or contextlib.nullcontext()
        self._poller = select.epoll()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._poller.register(self._wake, select.EPOLLIN)
        self._watcher = watcher(self._saw, self._poller) if watcher else None
        self._workers = WorkerPool(config.agent.workers, self._work, self._rouse)
        self._server: socket.socket | None = None
        self._clients: dict[int, Client] = {}
        self._gate = Gate()
        self._deaf = False
        self._owners: dict[tuple[str, str], tuple[float, int | None]] = {}
        self._timers: list[tuple[float, int, Event]] = []
        self._planned: set[tuple[object, ...]] = set()
        """The gist of each event that is to come."""
        self._count = itertools.count()
        self._spool_time = -1
        self._at_work: set[Path] = set()
        """Files of the spool whose events are being handled, or have been and cannot be removed."""
        self._stopping = False
        self._next_prune = 0.0

    # -- life ------------------------------------------------------------------------------------

    def run(self) -> None:
        """Serve until `stop` is called. SchedhookError where another agent has the socket, or it
        cannot be made."""
        with contextlib.ExitStack() as stack:
            stack.callback(self._close)
            if self._path is not None:
                stack.enter_context(lock(self._path))
                # Every user may connect to root's; who they are is looked at then.
                self._server = listen(self._path, 0o666 if os.geteuid() == 0 else 0o600)
                self._poller.register(self._server, select.EPOLLIN)
            stack.enter_context(self._beside)
            self._take_up()
            notify_systemd("READY=1")
            _log.info("agent serves", socket=str(self._path) if self._path else None)
            next_tick = 0.0
            while not self._stopping:
                now = time.monotonic()
                if now >= next_tick:
                    next_tick = self._tick(now)
                wake = min([next_tick, *(timer[0] for timer in self._timers[:1])])
                self._serve(max(0.0, wake - time.monotonic()))
                self._ring()
            notify_systemd("STOPPING=1")
            self._workers.stop(_STOP_SECONDS)
            self._finish()
            _log.info("agent ends")

    def stop(self) -> None:
        """End `run` soon. May be called from a signal dispatcher or another thread."""
        self._stopping = True
        self._rouse()

    def install_signals(self) -> None:
        """SIGTERM and SIGINT stop the agent."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.stop())

    def _rouse(self) -> None:
        with contextlib.suppress(OSError):
            os.eventfd_write(self._wake, 1)

    def _close(self) -> None:
        for client in list(self._clients.values()):
            self._drop(client)
        if self._server is not None:
            self._server.close()
            with contextlib.suppress(OSError):
                Path(self._path or "").unlink()
        if self._watcher is not None:
            self._watcher.close()
        self._poller.close()
        os.close(self._wake)
        if self._journal is not self._dispatcher.journal:
            self._journal.close()

    def _take_up(self) -> None:
        """What an earlier agent, or a host's earlier life, has left."""
        journal = self._dispatcher.journal
        if found := recover():
            _log.warning("put back what a killed relocation had left", relocations=found)
        try:
            for run in journal.open_runs():
                if not run.is_of_this_boot():
                    journal.ended(run.scheduler, run.job, max(boot_time(), run.started))
            for number, at, event in journal.unfinished_events():
                _log.info("event taken up again", job=event.job, point=event.point)
                self._workers.put(event, at, number, None)
            for run in journal.noted(PARKED):
                # It may have gone on while nobody looked.
                event = Event(
                    scheduler=run.scheduler,
                    point=EventKind.RESUMED.value,
                    job=run.job,
                    data={**SEEN_BY, "again": True},
                )
                self._workers.put(event, time.time(), None, None)
        except JournalError as error:
            _log.error("journal not readable", problem=str(error))
        self._read_spool()

    # -- the loop --------------------------------------------------------------------------------

    def _tick(self, now: float) -> float:
        wake = now if self._read_spool() else now + self._config.watch.interval_s
        self._workers.grow()
        if self._deaf and self._server is not None:
            self._deaf = False
            self._poller.modify(self._server, select.EPOLLIN)
        for client in [each for each in self._clients.values() if now > each.deadline]:
            if not client.message:
                self._answer(client, "too slow")
                self._drop(client)
        if now >= self._next_prune:
            self._next_prune = now + _PRUNE_SECONDS
            with contextlib.suppress(JournalError):
                kept = self._config.journal
                self._journal.prune(kept.keep_days, kept.keep_per_job)
        return min(wake, self._watcher.tick(now)) if self._watcher else wake

    def _serve(self, timeout: float) -> None:
        for descriptor, _ in self._poller.poll(timeout):
            if descriptor == self._wake:
                with contextlib.suppress(OSError):
                    os.eventfd_read(self._wake)
                self._finish()
            elif self._server is not None and descriptor == self._server.fileno():
                self._accept()
            elif descriptor in self._clients:
                self._receive(self._clients[descriptor])
            elif self._watcher is not None:
                self._watcher.notified(descriptor, time.monotonic())

    def _ring(self) -> None:
        """Events whose time has come."""
        while self._timers and self._timers[0][0] <= time.monotonic():
            event = heapq.heappop(self._timers)[2]
            self._planned.discard(_gist(event))
            self._workers.put(event, time.time(), None, None)

    def _later(self, event: Event, seconds: float) -> None:
        # The ends of a hundred jobs are one reason to look at another.
        if _gist(event) not in self._planned:
            self._planned.add(_gist(event))
            heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._count), event))

    # -- clients ---------------------------------------------------------------------------------

    def _accept(self) -> None:
        assert self._server is not None
        for _ in range(64):  # then others have their turn
            try:
                connection, _ = self._server.accept()
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    # Whoever waits goes on waiting; asking again at once would only keep us busy.
                    _log.error("no more connections", problem=error.strerror)
                    self._deaf = True
                    self._poller.modify(self._server, 0)
                return
            connection.setblocking(False)
            client = Client(connection)
            refusal = self._gate.refusal(client, self._clients.values(), time.monotonic())
            if refusal:
                self._answer(client, refusal)
                connection.close()
                continue
            self._clients[connection.fileno()] = client
            self._poller.register(connection, select.EPOLLIN)
            self._receive(client)

    def _receive(self, client: Client) -> None:
        if client.message:
            self._drop(client)  # it was to wait for the answer, and has gone
            return
        try:
            part = client.connection.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            self._drop(client)
            return
        if part:
            client.said += part
            if len(client.said) > client.most_bytes:
                self._answer(client, f"the message has more than {client.most_bytes} bytes")
                self._drop(client)
            return
        try:
            raw = bytes(client.said)
            client.message = parse_message(raw)
            client.said.clear()
            self._poller.modify(client.connection, 0)
            self._take_from(client, client.message, raw)
        except SchedhookError as error:
            self._answer(client, str(error))
            self._drop(client)
        except PLUGIN_ERRORS as error:  # an adapter's bug is no reason to end
            # A user who has found one is not to fill the log with it.
            (_log.error if client.trusted else _log.debug)("event not read", exc_info=True)
            self._answer(client, f"{type(error).__name__}: {error}")
            self._drop(client)
        else:
            self._answer(client, "ok")
            if not client.message.wait:
                self._drop(client)

    def _answer(self, client: Client, line: str) -> None:
        text = " ".join(line.split()).encode("utf-8", "replace")[:1000] + b"\n"
        with contextlib.suppress(OSError):
            client.connection.send(text)

    def _drop(self, client: Client) -> None:
        if self._clients.pop(client.connection.fileno(), None) is not None:
            with contextlib.suppress(OSError, ValueError):
                self._poller.unregister(client.connection)
        client.connection.close()

    # -- events in -------------------------------------------------------------------------------

    def _take_from(self, client: Client, message: Message, raw: bytes) -> None:
        """Take what a client says. SchedhookError for what is not wanted."""
        if client.trusted:
            self._take(message, client if message.wait else None, raw)
            return
        # Not kept: nobody but root writes the journal, and an agent to come looks anyway.
        adapter = self._dispatcher.adapter(message.scheduler)
        event = read_users_event(message, adapter, client.uid, partial(self._owner, adapter))
        self._workers.put(event, time.time(), None, client if message.wait else None)

    def _take(self, message: Message, waits: Client | None, raw: bytes | None = None) -> None:
        """Keep an event and see to it that it is handled. While the journal is locked it is kept in
        the spool; JournalBusyError where it comes from there (it has no `raw`)."""
        event = read_event(message, self._dispatcher.adapter(message.scheduler))
        if self._watcher is not None:
            self._watcher.scan_soon()
        receipt: Receipt = None
        try:
            receipt = self._journal.put_event(event, message.at)
            if receipt is None:
                _log.info("event came twice", job=event.job, point=event.point)
                if waits is None:
                    return
        except JournalBusyError as error:
            if raw is None:
                raise
            receipt = self._to_spool(raw)
            _log.warning("event kept in the spool", job=event.job, problem=str(error))
            if receipt is not None:
                if waits is None:
                    return  # it is handled once that can be written down
                self._at_work.add(receipt)
        except JournalError as error:
            _log.error("event not in the journal", job=event.job, problem=str(error))
        self._workers.put(event, message.at, receipt, waits)

    def _to_spool(self, raw: bytes) -> Path | None:
        if self._spool is None:
            return None
        try:
            return Path(delivery.write_spool(raw, str(self._spool)))
        except delivery.NotDelivered as problem:
            _log.error("event not kept", problem=str(problem))
            return None

    def _owner(self, adapter: Scheduler, job: str) -> int | None:
        """Whose job it is, as root's hooks have said, else as its processes show."""
        run = self._dispatcher.ask(lambda: self._journal.run(adapter.name, job), None)
        if run is not None and run.hooked and run.ended is None and run.user is not None:
            return run.user
        key, now = (adapter.name, job), time.monotonic()
        until, owner = self._owners.get(key, (0.0, None))
        if now >= until:
            if len(self._owners) >= _MOST_OWNERS:
                self._owners.clear()
            owner = adapter.owner(job)
            self._owners[key] = now + _OWNER_SECONDS, owner
        return owner

    def _read_spool(self) -> bool:
        """Whether there is more than there was time for."""
        if self._spool is None:
            return False
        end = time.monotonic() + _SPOOL_SECONDS
        try:
            changed = self._spool.stat().st_mtime_ns
            if changed == self._spool_time:
                return False
            self._spool_time = changed if time.time_ns() - changed > _TICK_NS else -1
            for path, raw in read_spool(self._spool):
                # In this order: whoever has handled it removes the file first.
                if path in self._at_work or not path.exists():
                    continue
                try:
                    self._take(replace(parse_message(raw), wait=False), None)
                except JournalBusyError:
                    self._spool_time = -1
                    return False
                except PLUGIN_ERRORS as error:  # one bad file is not to stop the others
                    _log.error("spooled event dropped", file=str(path), problem=str(error))
                self._remove(path)
                if time.monotonic() > end:
                    self._spool_time = -1
                    return True
        except FileNotFoundError:
            pass
        except (OSError, SchedhookError) as error:
            _log.error("spool not read", problem=str(error))
        return False

    def _remove(self, path: Path) -> None:
        """A file of the spool has been dealt with. One that stays (immutable, say) is told of once,
        and passed over from then on."""
        try:
            path.unlink(missing_ok=True)
            self._at_work.discard(path)
        except OSError as error:
            self._at_work.add(path)
            _log.error("spooled event stays", file=str(path), problem=error.strerror)

    def _saw(self, event: Event) -> None:
        """The watcher's events."""
        self._workers.put(event, time.time(), None, None)

    # -- events done -----------------------------------------------------------------------------

    def _work(self, event: Event, at: float, receipt: Receipt) -> EventResult:
        """In a worker's thread."""
        handled = self._dispatcher.handle(event, at)
        journal = self._dispatcher.journal
        telling = event.data.get("seen_by") and handled.acted
        try:
            if isinstance(receipt, int):
                journal.finish_event(receipt, handled.summary)
            elif receipt is not None or telling:
                with journal.transaction():
                    number = journal.put_event(event, at)
                    if number is not None:
                        journal.finish_event(number, handled.summary)
        except JournalError as error:
            _log.error("event not in the journal", job=event.job, problem=str(error))
        if isinstance(receipt, Path):
            self._remove(receipt)
        return handled

    def _finish(self) -> None:
        """In the agent's thread: answer who waits, and plan what follows."""
        for event, handled, client in self._workers.finished():
            if isinstance(client, Client):
                self._answer(client, handled.summary)
                self._drop(client)
            for more in handled.more:
                self._later(more, _MORE_SECONDS)
            if handled.retry_after is not None:
                data = {**event.data, **SEEN_BY, "again": True}
                self._later(replace(event, data=data), handled.retry_after)


def _gist(event: Event) -> tuple[object, ...]:
    """What an event asks for, whatever the reason."""
    return event.scheduler, event.job, event.point, bool(event.data.get("repatriate"))


def notify_systemd(state: str) -> None:
    """Tell the service manager, where there is one; sd_notify(3)."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address[:1] in ("/", "@"):
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
            link.connect("\0" + address[1:] if address[0] == "@" else address)
            link.send(state.encode())
