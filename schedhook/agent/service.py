"""Putting an agent together from the configuration, and running it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from select import epoll

from schedhook.agent.dispatcher import Dispatcher
from schedhook.agent.exporter import exporting
from schedhook.agent.server import Agent
from schedhook.agent.sockets import lock
from schedhook.agent.watcher import Watcher
from schedhook.jobs.metrics import Footprints, exposition
from schedhook.journal.journal import open_journal
from schedhook.plugins.descriptors import SchedulerPlugin
from schedhook.plugins.manager import Plugins
from schedhook.roles.scheduler import Scheduler
from schedhook.values.config import Config
from schedhook.values.errors import PLUGIN_ERRORS, SchedhookError, UsageError
from schedhook.values.log import get_logger
from schedhook.values.model import Event

_log = get_logger()


def serve(
    config: Config,
    plugins: Plugins,
    *,
    path: Path | None,
    spool: Path | None,
    watch: bool,
    root: Path = Path("/"),
) -> None:
    """Run an agent in this thread until SIGTERM or SIGINT. UsageError where another one runs;
    PluginError for a scheduler in [watch] that nobody provides."""
    with ExitStack() as stack:
        if path is None:
            _alone(stack, Path(config.agent.socket))
        journal = stack.enter_context(open_journal(config))
        dispatcher = Dispatcher(config, plugins, journal, root=root)
        footprints = Footprints()
        agent = Agent(
            dispatcher,
            config,
            path=path,
            spool=spool,
            watcher=_watcher(config, plugins, dispatcher, root) if watch else None,
            exporter=exporting(
                config.metrics, lambda: exposition(config, plugins, journal, root, footprints)
            ),
        )
        agent.install_signals()
        agent.run()


def _alone(stack: ExitStack, path: Path) -> None:
    """Two processes that follow a job would get in each other's way."""
    try:
        stack.enter_context(lock(path))
    except UsageError:
        raise
    except SchedhookError as error:
        _log.warning("cannot tell whether an agent runs", problem=str(error))


def _watcher(
    config: Config, plugins: Plugins, dispatcher: Dispatcher, root: Path
) -> Callable[[Callable[[Event], None], epoll], Watcher]:
    wanted = config.watch.schedulers
    adapters: list[Scheduler] = []
    for name in wanted or plugins.names(SchedulerPlugin):
        try:
            adapters.append(dispatcher.adapter(name))
        except PLUGIN_ERRORS as error:
            if wanted:
                raise
            _log.error(
                "cannot watch jobs", scheduler=name, problem=f"{type(error).__name__}: {error}"
            )
    return lambda emit, poller: Watcher(adapters, config.watch, emit, poller, root)
