"""Run a command to its exit status: an error is one line on standard error."""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import click

from schedhook.values.errors import ProcessGoneError, SchedhookError
from schedhook.values.log import mark_severity
from schedhook.values.text import printable

_ERROR = 3
"""LOG_ERR of syslog(3)."""
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def run_command(command: click.Command, name: str) -> NoReturn:
    """Run `command` as the program `name` and exit with its status; see `run`."""
    # A daemon may start us with SIGCHLD ignored; then the exit status of each program that we run
    # would be lost, and 0 be seen instead.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _replace_closed_streams()
    if isinstance(sys.stdout, io.TextIOWrapper):  # for characters that the terminal cannot show
        sys.stdout.reconfigure(errors="replace")
    sys.exit(_run(command, name))


def complain(line: str) -> None:
    """Print one line on standard error, with control characters escaped.

    It may contain names that users chose, such as a cgroup's.
    """
    click.echo(mark_severity(printable(line), _ERROR), err=True)


def _run(command: click.Command, name: str) -> int:
    """Return the exit status: 0 done, 3 partial, 4 refused, 2 wrong usage, 1 failed."""
    try:
        status = command.main(prog_name=name, standalone_mode=False) or 0
        sys.stdout.flush()
        return status
    except click.exceptions.Exit as leave:
        return leave.exit_code
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except OSError as error:
        if error.errno not in _DISK_ERRORS or error.filename is not None:
            raise
        complain(f"{name}: the output cannot be written: {error.strerror}")
        _discard_output()
        return 1
    except (SchedhookError, click.Abort, click.ClickException) as error:
        message, status = _explain(error, name)
        complain(f"{name}: {message}")
        return status


def _replace_closed_streams() -> None:
    """Open /dev/null for each standard stream that the caller has closed.

    Else the next file that we open gets its number, and what is printed goes there.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            stream = Path(os.devnull).open(mode, encoding="utf-8")  # noqa: SIM115 - until the end
            setattr(sys, name, stream)


def _discard_output() -> None:
    """Give up what standard output still holds: Python would try to write it again at its end."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _explain(
    error: SchedhookError | click.Abort | click.ClickException, name: str
) -> tuple[str, int]:
    """Return (message, exit status)."""
    if isinstance(error, ProcessGoneError):
        return f"{error}; name a process that runs", error.exit_status
    if isinstance(error, SchedhookError):
        return str(error), error.exit_status
    if isinstance(error, click.Abort):
        return "interrupted; memory that had moved stays on its new nodes", 1
    if isinstance(error, click.UsageError):
        path = error.ctx.command_path if error.ctx is not None else name
        message = " ".join(error.format_message().split())  # click lists choices one per line
        return f"{message} (see `{path} --help`)", 2
    return error.format_message(), 2
