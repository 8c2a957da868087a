"""The journal's database, open: transactions of several threads and processes."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

from schedhook.journal.damage import Rows
from schedhook.journal.file import (
    BUSY_SECONDS,
    JournalError,
    check_owner,
    connect,
    create_tables,
    prepare,
    translated,
)
from schedhook.values.ownership import make_directory

_HASTE = 100
"""What others have locked for too long once is waited for by so much less the next time."""


class Database:
    """May be used from several threads; not across a fork. `rows` reads what may be damaged."""

    def __init__(
        self, connection: sqlite3.Connection, path: Path | None, patience: float = BUSY_SECONDS
    ) -> None:
        self.path = path
        self.connection = connection
        self.rows = Rows(connection, self.write)
        self._lock = threading.RLock()
        self._patience = patience
        self._hasty = False

    @classmethod
    def open(cls, path: Path, *, create: bool) -> Database:
        """See Journal.open."""
        with translated(path):
            if create:
                make_directory(path.parent, 0o700)
            check_owner(path.parent, "directory")
            flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | (os.O_CREAT if create else 0)
            handle = os.open(path, flags, 0o600)
            try:
                check_owner(path, "file", handle)
            finally:
                os.close(handle)
            connection = connect(str(path))
            try:
                prepare(connection, path)
            except BaseException:
                connection.close()
                raise
        return cls(connection, path)

    @classmethod
    def in_memory(cls) -> Database:
        """Without a file."""
        connection = connect(":memory:")
        create_tables(connection)
        return cls(connection, None)

    def beside(self, patience: float) -> Database | None:
        """The same file opened once more; see Journal.beside. None where that cannot be."""
        if self.path is None:
            return None
        # Opened by SQLite alone: closing a descriptor of ours would end this process's locks.
        connection = None
        try:
            connection = connect(str(self.path), patience)
            prepare(connection, self.path)
        except (sqlite3.Error, JournalError):
            if connection is not None:
                connection.close()
            return None
        return Database(connection, self.path, patience)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self.connection.close()

    @contextlib.contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """A transaction that has the right to write from its beginning: one that had to ask for it
        later could only fail. Within another one it is a part of that."""
        with self._lock, translated(self.path):
            if self.connection.in_transaction:
                yield self.connection
                return
            self._begin()
            try:
                yield self.connection
                self.connection.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    self.connection.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """The connection, for this thread alone."""
        with self._lock, translated(self.path):
            yield self.connection

    def _begin(self) -> None:
        try:
            self.connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            self._wait_at_most(self._patience / _HASTE)
            self._hasty = True
            raise
        if self._hasty:
            self._wait_at_most(self._patience)
            self._hasty = False

    def _wait_at_most(self, seconds: float) -> None:
        self.connection.execute(f"PRAGMA busy_timeout = {seconds * 1000:.0f}")
