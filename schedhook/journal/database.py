"""The journal's open database: transactions of several threads and processes."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

from schedhook.journal.damage import Rows
from schedhook.journal.errors import JournalError, translate_errors
from schedhook.journal.file import BUSY_SECONDS, check_file, check_owner, connect, prepare
from schedhook.journal.schema import create_tables
from schedhook.values.ownership import make_directory

_SHORTER = 100
"""Once a wait for the write lock has timed out, later waits are this many times shorter, until one
succeeds: a journal that stays locked must not cost the full timeout at every write."""


class Database:
    """An open database, for several threads but not across a fork. `rows` reads its tables."""

    def __init__(
        self, connection: sqlite3.Connection, path: Path | None, timeout: float = BUSY_SECONDS
    ) -> None:
        self.path = path
        self.connection = connection
        self.rows = Rows(connection, self.write)
        self._lock = threading.RLock()
        self._timeout = timeout
        self._timed_out = False

    @classmethod
    def open(cls, path: Path, *, create: bool) -> Database:
        """Open the file; see Journal.open."""
        with translate_errors(path):
            if create:
                make_directory(path.parent, 0o700)
            check_owner(path.parent, "directory", path.parent.stat())
            check_file(path, create=create)
            return cls._connect(path, BUSY_SECONDS)

    @classmethod
    def _connect(cls, path: Path, timeout: float) -> Database:
        connection = connect(str(path), timeout)
        try:
            prepare(connection, path)
        except BaseException:
            connection.close()
            raise
        return cls(connection, path, timeout)

    @classmethod
    def in_memory(cls) -> Database:
        """Return a database without a file."""
        connection = connect(":memory:")
        create_tables(connection, None)
        return cls(connection, None)

    def reopen(self, timeout: float) -> Database | None:
        """Open the same file again, with another timeout; see Journal.reopen.

        Return None if the database is in memory, or if the file cannot be opened again.
        """
        if self.path is None:
            return None
        try:
            return self._connect(self.path, timeout)
        except (sqlite3.Error, JournalError):
            return None

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self.connection.close()

    @contextlib.contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """Run the block as one transaction, or as part of the one that this thread is in.

        It takes the write lock at its beginning: SQLite refuses at once a transaction that begins
        with a read and asks for the lock after another connection has written.
        """
        with self._lock, translate_errors(self.path):
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
        """Yield the connection; other threads wait until the block has ended."""
        with self._lock, translate_errors(self.path):
            yield self.connection

    def _begin(self) -> None:
        try:
            self.connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            self._set_timeout(self._timeout / _SHORTER)
            self._timed_out = True
            raise
        if self._timed_out:
            self._set_timeout(self._timeout)
            self._timed_out = False

    def _set_timeout(self, seconds: float) -> None:
        self.connection.execute(f"PRAGMA busy_timeout = {seconds * 1000:.0f}")
