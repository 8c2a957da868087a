"""Handle one event in a process of its own: for `--wait` where no agent runs.

`schedhook.hook.delivery` starts it, with the message on standard input.
"""

from __future__ import annotations

import sys
import time
from collections import deque

from schedhook.agent.dispatcher import Dispatcher
from schedhook.agent.events import read_event
from schedhook.agent.followup import EventResult
from schedhook.hook import delivery
from schedhook.hook.message import parse_message
from schedhook.journal.journal import open_journal
from schedhook.values import log
from schedhook.values.config import Config, LogLevel, load_config
from schedhook.values.errors import ConfigError, SchedhookError

_log = log.get_logger()

_MOST_EVENTS = 1000


def config_or_defaults() -> Config:
    """The configuration, or what holds without one where it is broken: a hook goes on."""
    try:
        return load_config()
    except ConfigError as error:
        _log.error("configuration not used", problem=str(error))
        return Config()


def handle_message(raw: bytes, config: Config) -> EventResult:
    """Handle the event and what follows from it. The result is the first event's."""
    from schedhook.plugins.loading import load_plugins  # noqa: PLC0415 - heavy, and not for --help

    message = parse_message(raw)
    with open_journal(config) as journal:
        dispatcher = Dispatcher(config, load_plugins(config), journal)
        event = read_event(message, dispatcher.adapter(message.scheduler))
        number = dispatcher.ask(lambda: journal.events.put(event, message.at), None)
        if number is None:
            # An agent that could not say `ok` any more may have taken it, and even handled it.
            found = dispatcher.ask(lambda: journal.events.find(event, message.at), None)
            number, summary = found or (None, None)
            if summary is not None:
                return EventResult(summary=summary)
        first = dispatcher.handle(event, message.at)
        if number is not None:
            dispatcher.ask(lambda: journal.events.finish(number, first.summary), None)
        more = deque(first.more)
        for _ in range(_MOST_EVENTS):
            if not more:
                break
            more.extend(dispatcher.handle(more.popleft(), time.time()).more)
    return first


def main() -> int:
    """Exit status 0 where the event was handled well."""
    raw = sys.stdin.buffer.read(delivery.MOST_BYTES + 1)
    config = config_or_defaults()
    # What was done is on standard output; the log beside it is for what went wrong.
    level = LogLevel.WARNING if config.log.level is LogLevel.INFO else config.log.level
    log.configure(config.log.format, level)
    try:
        handled = handle_message(raw, config)
    except SchedhookError as error:
        print(f"schedhook: {error}", file=sys.stderr)
        return error.exit_status
    except Exception:  # noqa: BLE001
        _log.error("event failed", exc_info=True)
        return 1
    print(handled.summary, flush=True)
    return 0 if handled.ok else 1
