"""Open the journal's file: its owner, its connection settings, its place on this host."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import stat
import time
from collections.abc import Mapping
from pathlib import Path

from schedhook.host.mounts import read_mounts
from schedhook.journal.errors import JournalError, error_code, translate_errors
from schedhook.journal.schema import check_version, create_tables
from schedhook.values.config import Config
from schedhook.values.ownership import explain_untrusted

BUSY_SECONDS = 10.0
"""How long a write waits for other connections; each of them needs about a millisecond."""
_NETWORK = frozenset({"nfs", "nfs4", "lustre", "gpfs", "beegfs", "ceph", "cifs", "fuse.sshfs"})
"""File systems on which SQLite's write-ahead log cannot work, since it needs shared memory; see
sqlite.org/wal.html."""


def journal_path(config: Config, environ: Mapping[str, str] = os.environ) -> Path:
    """Return `[journal] path`, if it is set, or the default path of this user.

    The default is /var/lib/schedhook/journal.db for root, else schedhook/journal.db below
    $XDG_STATE_HOME (~/.local/state).
    """
    if config.journal.path:
        return Path(config.journal.path)
    if os.geteuid() == 0:
        return Path("/var/lib/schedhook/journal.db")
    state = environ.get("XDG_STATE_HOME", "")
    base = Path(state) if state.startswith("/") else Path("~/.local/state").expanduser()
    return base / "schedhook" / "journal.db"


def has_journal(path: Path) -> bool:
    """Return whether there is a file at `path`. Raise JournalError if this user may not know."""
    with translate_errors(path):
        try:
            path.stat()
        except FileNotFoundError:
            return False
    return True


def connect(name: str, timeout: float = BUSY_SECONDS) -> sqlite3.Connection:
    """Return a connection that waits at most `timeout` seconds for other connections' writes."""
    connection = sqlite3.connect(
        name, timeout=timeout, isolation_level=None, check_same_thread=False
    )
    connection.row_factory = sqlite3.Row
    connection.text_factory = _decode
    connection.execute("PRAGMA foreign_keys = ON")
    return connection


def _decode(raw: bytes) -> str:
    # The reader of a row refuses damaged text; it must not end the whole query.
    return raw.decode("utf-8", "surrogateescape")


def prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Choose the log mode, and create the tables in an empty file.

    Raise JournalError if the file's schema has another version.
    """
    has_tables = check_version(connection, path)
    mode = "TRUNCATE" if _file_system(path) in _NETWORK else "WAL"
    _set_log_mode(connection, mode)
    # With WAL a commit survives the process; a power cut may lose the last ones, as it loses jobs.
    connection.execute(f"PRAGMA synchronous = {'NORMAL' if mode == 'WAL' else 'FULL'}")
    if not has_tables:
        create_tables(connection, path)


def _set_log_mode(connection: sqlite3.Connection, mode: str) -> None:
    # The change needs the file for itself, and SQLite does not apply its busy timeout to it.
    end = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute(f"PRAGMA journal_mode = {mode}")
            return
        except sqlite3.OperationalError as error:
            if error_code(error) != "SQLITE_BUSY" or time.monotonic() > end:
                raise
            time.sleep(0.01)


def check_file(path: Path, *, create: bool) -> None:
    """Raise JournalError or OSError if the file may not be used; with `create`, make a missing one.

    SQLite alone opens a journal that exists: to close any descriptor of it ends the locks that all
    of this process's connections hold on it. Another process then deletes the log that they write.
    """
    with contextlib.suppress(FileExistsError):
        if create:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    status = path.lstat()
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(status.st_mode):
        raise JournalError(f"{path}: not a regular file; move it away, a new one will be created")
    check_owner(path, "file", status)
    if not os.access(path, os.R_OK | os.W_OK, effective_ids=True):
        why = errno.EROFS if os.statvfs(path).f_flag & os.ST_RDONLY else errno.EACCES
        raise OSError(why, os.strerror(why))


def check_owner(path: Path, what: str, status: os.stat_result) -> None:
    """Raise JournalError if another user could write the file or directory.

    The agent acts as root on what the journal says.
    """
    if found := explain_untrusted(path, status):
        raise JournalError(f"the journal's {what} {found}; chown it to this user and chmod go-w")


def _file_system(path: Path) -> str:
    """Return the type of the file system that `path` is on, empty if it is unknown."""
    resolved = path.resolve()
    above = [mount for mount in read_mounts() if resolved.is_relative_to(mount.point)]
    # Of several mounts on one point the last hides the others; max() would return the first.
    nearest = max(reversed(above), key=lambda mount: len(Path(mount.point).parts), default=None)
    return nearest.kind if nearest else ""
