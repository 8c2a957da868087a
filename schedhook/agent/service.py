"""Create an agent from the configuration, and run it."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from select import epoll

from schedhook.agent.dispatcher import Dispatcher
from schedhook.agent.exporter import export_metrics
from schedhook.agent.records import Records
from schedhook.agent.server import Agent
from schedhook.agent.sockets import lock
from schedhook.agent.watcher import Watcher
from schedhook.jobs.metrics import Metrics
from schedhook.jobs.notes import JournalNotes
from schedhook.journal.journal import open_journal
from schedhook.plugins.descriptors import SchedulerPlugin
from schedhook.plugins.manager import Plugins
from schedhook.roles.scheduler import Scheduler
from schedhook.values.config import Config
from schedhook.values.errors import PLUGIN_ERRORS, SchedhookError, UsageError
from schedhook.values.log import get_logger
from schedhook.values.model import Event
from schedhook.values.text import describe_error

_log = get_logger()

_JOURNAL_SECONDS = 0.5
"""How long the watcher waits for other writers of the journal."""


def serve(
    config: Config,
    plugins: Plugins,
    *,
    path: Path | None,
    spool: Path | None,
    watch: bool,
    root: Path = Path("/"),
) -> None:
    """Run an agent in this thread until SIGTERM, SIGINT or SIGHUP.

    `path` is its socket, `spool` the directory where hooks leave events; without them it only
    watches. Raise UsageError if another agent runs, PluginError if [watch] names a scheduler that
    no plug-in provides.
    """
    with ExitStack() as stack:
        if path is None:
            _lock_agent(stack, Path(config.agent.socket))
        journal = stack.enter_context(open_journal(config))
        dispatcher = Dispatcher(config, plugins, journal, root=root)
        watcher = _make_watcher(config, plugins, dispatcher, root, stack) if watch else None
        metrics = Metrics(config=config, plugins=plugins, journal=journal, root=root)
        agent = Agent(
            dispatcher,
            config,
            path=path,
            spool=spool,
            watcher=watcher,
            exporter=export_metrics(config.metrics, metrics.render),
        )
        stop_at_signals(agent.stop)
        agent.run()


def stop_at_signals(stop: Callable[[], None]) -> None:
    """Call `stop` at SIGTERM, SIGINT and SIGHUP.

    An ignored SIGHUP stays ignored, as nohup(1) wants it.
    """
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda *_: stop())


def _lock_agent(stack: ExitStack, socket: Path) -> None:
    """Lock the agent's socket although it is not served: two agents would both move a job."""
    try:
        stack.enter_context(lock(socket))
    except UsageError:
        raise
    except SchedhookError as error:
        _log.warning("cannot tell whether another agent runs", problem=str(error))


def _make_watcher(
    config: Config, plugins: Plugins, dispatcher: Dispatcher, root: Path, stack: ExitStack
) -> Callable[[Callable[[Event], None], epoll], Watcher]:
    """Return a function that makes the watcher of [watch]'s schedulers, or of all of them."""
    # The watcher runs in the thread that must not wait while others write the journal.
    journal = dispatcher.journal.reopen(_JOURNAL_SECONDS)
    if journal is not dispatcher.journal:
        stack.enter_context(journal)
    wanted = config.watch.schedulers
    adapters: list[Scheduler] = []
    for name in wanted or plugins.names(SchedulerPlugin):
        try:
            adapter = plugins.adapter(name, root)
        except PLUGIN_ERRORS as error:
            if wanted:
                raise
            problem = describe_error(error)
            _log.error("cannot watch jobs", scheduler=name, problem=problem)
        else:
            adapter.notes = JournalNotes(journal, name)
            adapters.append(adapter)
    # Of a job that ended while no agent ran, only a hook may have reported the end.
    known = [(run.scheduler, run.job) for run in Records(journal).open_runs()]
    return lambda emit, poller: Watcher(adapters, config.watch, emit, poller, root, known)
