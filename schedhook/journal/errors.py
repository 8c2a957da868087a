"""Errors of the journal, and the translation of SQLite's and the kernel's errors into them."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from schedhook.values.errors import RefusedError, SchedhookError


class JournalError(SchedhookError):
    """The journal cannot be used. The message names the file and the remedy."""


class JournalBusyError(JournalError):
    """Another connection kept the journal locked for too long; a later try may succeed."""


class JobLockedError(RefusedError):
    """Another process holds the job's lock."""


_REMEDY = {
    "SQLITE_NOTADB": "not a journal, or damaged; move it away, a new one will be created",
    "SQLITE_CORRUPT": "damaged; move it away, a new one will be created",
    "SQLITE_FULL": "the disk is full",
    "SQLITE_READONLY": "not writable; check its owner, its mode and the file system",
    "SQLITE_CANTOPEN": "cannot be opened; check its owner, its mode and the file system",
    "SQLITE_BUSY": "another process kept it locked for too long",
    "SQLITE_IOERR": "the disk fails or is full",
    "SQLITE_ERROR": "its tables are not those of schedhook; move it away",
}


@contextlib.contextmanager
def translate_errors(path: Path | None) -> Iterator[None]:
    """Raise SQLite's errors and OSError from the block as JournalError, which names `path`."""
    name = path or "the journal in memory"
    try:
        yield
    except sqlite3.Error as error:
        code = error_code(error)
        remedy = next((text for key, text in _REMEDY.items() if code.startswith(key)), str(error))
        kind = JournalBusyError if code.startswith("SQLITE_BUSY") else JournalError
        raise kind(f"{name}: {remedy} ({code or type(error).__name__})") from error
    except OSError as error:
        denied = isinstance(error, PermissionError)
        remedy = "run as root" if denied else "correct `path` in [journal]"
        raise JournalError(f"{name}: cannot be used: {error.strerror}; {remedy}") from error


def error_code(error: sqlite3.Error) -> str:
    """Return the name of SQLite's error code, empty if the error has none."""
    return getattr(error, "sqlite_errorname", "") or ""
