"""Handle one event in a process of its own: for hooks that wait for the result while no agent runs.

`schedhook.hook.delivery` starts it, with the message on standard input.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Iterable

from schedhook.agent.dispatcher import Dispatcher
from schedhook.agent.events import read_event
from schedhook.agent.results import EventResult
from schedhook.hook import delivery
from schedhook.hook.message import parse_message
from schedhook.journal.errors import JournalError
from schedhook.journal.journal import Journal, open_journal
from schedhook.values import log
from schedhook.values.config import Config, LogLevel, load_config
from schedhook.values.errors import ConfigError, SchedhookError
from schedhook.values.model import Event

_log = log.get_logger()

_MAX_FOLLOWING = 1000
"""Events of other jobs that are handled after this one."""


def config_or_defaults() -> Config:
    """Return the configuration; if it is invalid, log why and return the defaults."""
    try:
        return load_config()
    except ConfigError as error:
        _log.error("configuration not used", problem=str(error))
        return Config()


def handle_message(raw: bytes, config: Config) -> EventResult:
    """Handle the message's event and those that follow from it; return the first event's result.

    Raise UsageError if the message cannot be read.
    """
    from schedhook.plugins.loading import load_plugins  # noqa: PLC0415 - heavy, and not for --help

    message = parse_message(raw)
    with open_journal(config) as journal:
        dispatcher = Dispatcher(config, load_plugins(config), journal)
        event = read_event(message, dispatcher.adapter(message.scheduler))
        number, summary = _accept_event(journal, event, message.at)
        if summary is not None:
            return EventResult(summary=summary)
        result = dispatcher.handle(event, message.at)
        _record_result(journal, number, result)
        _handle_following(dispatcher, result.more)
    return result


def _accept_event(journal: Journal, event: Event, at: float) -> tuple[int | None, str | None]:
    """Write the event to the journal; return its number, and its summary if it was handled already.

    An agent that was killed before it could answer `ok` may have accepted and even handled it.
    """
    try:
        number = journal.events.put(event, at)
        if number is not None:
            return number, None
        return journal.events.find(event, at) or (None, None)
    except JournalError as error:
        _log.error("cannot record event in the journal", problem=str(error))
        return None, None


def _record_result(journal: Journal, number: int | None, result: EventResult) -> None:
    if number is not None:
        try:
            journal.events.finish(number, result.summary)
        except JournalError as error:
            _log.error("cannot record event in the journal", problem=str(error))


def _handle_following(dispatcher: Dispatcher, events: Iterable[Event]) -> None:
    waiting = deque(events)
    for _ in range(_MAX_FOLLOWING):
        if not waiting:
            return
        waiting.extend(dispatcher.handle(waiting.popleft(), time.time()).more)


def main() -> int:
    """Handle the message on standard input and return the exit status: 0 if all went well."""
    raw = sys.stdin.buffer.read(delivery.MOST_BYTES + 1)
    config = config_or_defaults()
    # The result goes to standard output; the log, on standard error, is only for problems.
    level = LogLevel.WARNING if config.log.level is LogLevel.INFO else config.log.level
    log.configure(config.log.format, level)
    try:
        result = handle_message(raw, config)
    except SchedhookError as error:
        print(f"schedhook: {error}", file=sys.stderr)
        return error.exit_status
    except Exception:  # noqa: BLE001
        _log.error("event failed", exc_info=True)
        return 1
    print(result.summary, flush=True)
    return 0 if result.ok else 1
