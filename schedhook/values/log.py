"""Structured log lines on standard error; standard output is for results.

structlog is imported when the first line is written: a scheduler's hook that logs nothing does not
pay for the import.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from schedhook.values.config import LogFormat, LogLevel

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger, Processor

_SEVERITY = {
    LogLevel.DEBUG: 10,
    LogLevel.INFO: 20,
    LogLevel.WARNING: 30,
    LogLevel.ERROR: 40,
}


class _Settings:
    """The settings of `configure`; `logger` is made from them when it is first needed."""

    format = LogFormat.AUTO
    level = LogLevel.INFO
    logger: FilteringBoundLogger | None = None


def configure(format: LogFormat | str, level: LogLevel | str) -> None:  # noqa: A002 - the key's name
    """Choose the format and the least severe level; existing loggers change too."""
    _Settings.format = LogFormat(format)
    _Settings.level = LogLevel(level)
    _Settings.logger = None


def get_logger() -> FilteringBoundLogger:
    """Return a logger, for calls such as `get_logger().info("what happened", pid=7)`."""
    return cast("FilteringBoundLogger", _WhenUsed())


class _WhenUsed:
    def __getattr__(self, name: str) -> Any:
        if _Settings.logger is None:
            _Settings.logger = _make_logger()
        return getattr(_Settings.logger, name)


def mark_severity(line: str, priority: int) -> str:
    """Return `line` so that systemd's journal knows its priority, of syslog(3).

    Unchanged unless standard error leads to the journal; see sd-daemon(3) and JOURNAL_STREAM in
    systemd.exec(5).
    """
    stream = os.environ.get("JOURNAL_STREAM")
    if not stream:
        return line
    try:
        status = os.fstat(2)
    except OSError:
        return line
    if stream != f"{status.st_dev}:{status.st_ino}":
        return line
    return "\n".join(f"<{priority}>{each}" for each in line.split("\n"))


class _StandardError:
    """Writes lines, and ignores errors.

    A closed pipe or a full disk must not interrupt a relocation.
    """

    def debug(self, line: str) -> None:
        self._write(line, 7)

    def info(self, line: str) -> None:
        self._write(line, 6)

    def warning(self, line: str) -> None:
        self._write(line, 4)

    def error(self, line: str) -> None:
        self._write(line, 3)

    def critical(self, line: str) -> None:
        self._write(line, 2)

    msg = info

    def _write(self, line: str, priority: int) -> None:
        stream = sys.stderr
        try:
            stream.write(mark_severity(line, priority) + "\n")
            stream.flush()
        except (OSError, ValueError, AttributeError):
            pass


def _make_logger() -> FilteringBoundLogger:
    with _without_rich():
        import structlog  # noqa: PLC0415 - see the module's docstring

    is_terminal = not getattr(sys.stderr, "closed", True) and sys.stderr.isatty()
    as_console = _Settings.format is LogFormat.CONSOLE or (
        _Settings.format is LogFormat.AUTO and is_terminal
    )
    renderers: list[Processor]
    if as_console:
        plain = structlog.dev.plain_traceback
        renderers = [
            _without_controls,
            structlog.dev.ConsoleRenderer(
                colors=is_terminal and not os.environ.get("NO_COLOR"), exception_formatter=plain
            ),
        ]
    else:
        # str: a node set is written as 0-3.
        as_json = structlog.processors.JSONRenderer(default=str)
        renderers = [structlog.processors.format_exc_info, _lead, as_json]
    logger: FilteringBoundLogger = structlog.wrap_logger(
        _StandardError(),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=not as_console),
            *renderers,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_SEVERITY[_Settings.level]),
        context_class=dict,
        cache_logger_on_first_use=False,
    ).bind()
    return logger


def _without_controls(
    _logger: object, _method: str, line: MutableMapping[str, Any]
) -> Mapping[str, Any]:
    """Escape control characters, which a terminal would obey; users choose some names."""
    from schedhook.values.text import printable  # noqa: PLC0415 - for consoles only

    return {
        key: printable(value) if isinstance(value, str) else value for key, value in line.items()
    }


def _lead(_logger: object, _method: str, line: MutableMapping[str, Any]) -> Mapping[str, Any]:
    """Put the keys first that readers look for first."""
    return {key: line.pop(key) for key in ("timestamp", "level", "event")} | dict(line)


@contextmanager
def _without_rich() -> Iterator[None]:
    """Keep structlog from importing rich.

    It would do so for tracebacks that are not used here, at a large part of a hook's cost.
    """
    if "rich" in sys.modules:
        yield
        return
    sys.modules["rich"] = cast(Any, None)
    try:
        yield
    finally:
        del sys.modules["rich"]
