"""The file under the journal: its schema, how it is opened, and what its errors mean."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from schedhook.host.mounts import read_mounts
from schedhook.values.errors import SchedhookError
from schedhook.values.ownership import explain_untrusted

BUSY_SECONDS = 10.0
"""How long a writer waits for others; each of them needs about a millisecond."""
_NETWORK = frozenset({"nfs", "nfs4", "lustre", "gpfs", "beegfs", "ceph", "cifs", "fuse.sshfs"})
"""File systems on which a write-ahead log, which is shared memory, cannot work; see sqlite.org."""

_SCHEMAS = (
    """
CREATE TABLE jobs (
    id INTEGER PRIMARY KEY, scheduler TEXT NOT NULL, job TEXT NOT NULL, user INTEGER,
    hooked INTEGER NOT NULL DEFAULT 0, started REAL NOT NULL, ended REAL);
CREATE UNIQUE INDEX one_open ON jobs (scheduler, job) WHERE ended IS NULL;
CREATE INDEX jobs_by_name ON jobs (job, scheduler, started);
CREATE TABLE placements (
    id INTEGER PRIMARY KEY, run INTEGER NOT NULL REFERENCES jobs ON DELETE CASCADE,
    task TEXT NOT NULL, cpus TEXT NOT NULL, nodes TEXT NOT NULL, settled INTEGER NOT NULL,
    at REAL NOT NULL);
CREATE INDEX placements_by_task ON placements (run, task, id);
CREATE TABLE events (
    id INTEGER PRIMARY KEY, at REAL NOT NULL, scheduler TEXT NOT NULL, point TEXT NOT NULL,
    job TEXT NOT NULL, host TEXT NOT NULL, user INTEGER, data TEXT NOT NULL, done REAL,
    summary TEXT, UNIQUE (scheduler, point, job, at));
CREATE INDEX events_by_job ON events (job, scheduler, at);
CREATE INDEX events_to_do ON events (id) WHERE done IS NULL;
CREATE TABLE reports (
    id INTEGER PRIMARY KEY, at REAL NOT NULL, scheduler TEXT, job TEXT, outcome TEXT NOT NULL,
    report TEXT NOT NULL);
CREATE INDEX reports_by_job ON reports (job, scheduler, at);
CREATE TABLE overrides (
    run INTEGER PRIMARY KEY REFERENCES jobs ON DELETE CASCADE, at REAL NOT NULL,
    was_cpus TEXT NOT NULL, was_nodes TEXT NOT NULL, cpus TEXT NOT NULL, nodes TEXT NOT NULL,
    data TEXT NOT NULL);
CREATE TABLE notes (
    run INTEGER NOT NULL REFERENCES jobs ON DELETE CASCADE, key TEXT NOT NULL, text TEXT NOT NULL,
    PRIMARY KEY (run, key));
CREATE TABLE holds (
    scheduler TEXT NOT NULL, job TEXT NOT NULL, pid INTEGER NOT NULL, start_time INTEGER NOT NULL,
    until REAL NOT NULL, PRIMARY KEY (scheduler, job, pid));
""",
    """
CREATE TABLE totals (series TEXT PRIMARY KEY, value REAL NOT NULL);
""",
    """
CREATE TABLE damaged (
    id INTEGER PRIMARY KEY, at REAL NOT NULL, origin TEXT NOT NULL, number INTEGER NOT NULL,
    problem TEXT NOT NULL, content TEXT NOT NULL);
""",
    """
ALTER TABLE jobs ADD COLUMN boot TEXT;
""",
)
"""What each version added to the one before it."""

SCHEMA_VERSION = len(_SCHEMAS)


class JournalError(SchedhookError):
    """The journal cannot be used; the message names the file and what to do."""


class JournalBusyError(JournalError):
    """Others keep the journal locked, but it may do later."""


def connect(name: str, patience: float = BUSY_SECONDS) -> sqlite3.Connection:
    """`patience`: seconds to wait for others' writes."""
    connection = sqlite3.connect(
        name, timeout=patience, isolation_level=None, check_same_thread=False
    )
    connection.row_factory = sqlite3.Row
    connection.text_factory = _text
    connection.execute("PRAGMA foreign_keys = ON")
    return connection


def _text(raw: bytes) -> str:
    """A damaged text is for whoever reads its row to refuse: one is not to end a whole query."""
    return raw.decode("utf-8", "surrogateescape")


def prepare(connection: sqlite3.Connection, path: Path) -> None:
    version = _version(connection)
    if version > SCHEMA_VERSION:
        raise JournalError(
            f"{path}: written by a newer schedhook (schema {version}, this one knows"
            f" {SCHEMA_VERSION}); upgrade this one"
        )
    mode = "TRUNCATE" if _file_system(path) in _NETWORK else "WAL"
    _set_mode(connection, mode)
    # With WAL a commit survives the process; the newest ones may go with a power cut, and the jobs.
    connection.execute(f"PRAGMA synchronous = {'NORMAL' if mode == 'WAL' else 'FULL'}")
    if version < SCHEMA_VERSION:
        create_tables(connection)


def _set_mode(connection: sqlite3.Connection, mode: str) -> None:
    """The change needs the file for itself, and does not wait for that as other writes do."""
    end = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute(f"PRAGMA journal_mode = {mode}")
            return
        except sqlite3.OperationalError as error:
            if _code(error) != "SQLITE_BUSY" or time.monotonic() > end:
                raise
            time.sleep(0.01)


def create_tables(connection: sqlite3.Connection) -> None:
    """Make the tables that are missing in a file of an older version, or in an empty one."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        for schema in _SCHEMAS[_version(connection) :]:  # another process may have been faster
            for statement in schema.split(";"):
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


def _version(connection: sqlite3.Connection) -> int:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version


def check_owner(path: Path, what: str, handle: int | None = None) -> None:
    """Nobody but this user may be able to write what root will act on."""
    status = path.stat() if handle is None else os.fstat(handle)
    if found := explain_untrusted(path, status):
        raise JournalError(f"the journal's {what} {found}; chown it to this user and chmod go-w")
    if handle is not None and not stat.S_ISREG(status.st_mode):
        raise JournalError(f"{path}: this is no file; move it away, a new one will be made")


def _file_system(path: Path) -> str:
    """The type of the file system that `path` is on, empty where nobody says."""
    where = path.resolve()
    over = [mount for mount in read_mounts() if where.is_relative_to(mount.point)]
    # Of those at one point the last hides the others, which max() would give.
    nearest = max(reversed(over), key=lambda mount: len(Path(mount.point).parts), default=None)
    return nearest.kind if nearest else ""


_REMEDY = {
    "SQLITE_NOTADB": "it is not a journal, or damaged; move it away, a new one will be made",
    "SQLITE_CORRUPT": "it is damaged; move it away, a new one will be made",
    "SQLITE_FULL": "the disk is full",
    "SQLITE_READONLY": "it cannot be written; look at its owner, its mode and the file system",
    "SQLITE_CANTOPEN": "it cannot be opened; look at its owner, its mode and the file system",
    "SQLITE_BUSY": "others have kept it locked for too long",
    "SQLITE_IOERR": "the disk fails, or is full",
    "SQLITE_ERROR": "its tables are not those of schedhook; move it away",
}


def _code(error: sqlite3.Error) -> str:
    return getattr(error, "sqlite_errorname", "") or ""


@contextlib.contextmanager
def translated(path: Path | None) -> Iterator[None]:
    name = path or "the journal in memory"
    try:
        yield
    except sqlite3.Error as error:
        code = _code(error)
        remedy = next((text for key, text in _REMEDY.items() if code.startswith(key)), str(error))
        kind = JournalBusyError if code.startswith("SQLITE_BUSY") else JournalError
        raise kind(f"{name}: {remedy} ({code or type(error).__name__})") from error
    except OSError as error:
        raise JournalError(f"{name}: cannot be used: {error.strerror}") from error
