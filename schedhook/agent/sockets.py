"""Sockets that no other user can replace, and that only one agent serves."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from schedhook.values.errors import SchedhookError, UsageError
from schedhook.values.ownership import explain_untrusted, make_directory

_BACKLOG = 1024
_PATIENCE_SECONDS = 0.5
_LONGEST_PATH = 107
"""Bytes, see unix(7)."""


@contextlib.contextmanager
def lock(path: Path) -> Iterator[None]:
    """Be the only agent of the socket `path` for the block. Create its directory if need be.

    Raise UsageError if another agent has the socket, `path` names no file or is too long,
    SchedhookError if something else is there, if other users may write the directory, or if the
    lock file cannot be opened.
    """
    if not path.name:
        raise UsageError(f"the agent's socket {str(path)!r} is not a file's path; name a file")
    _check_place(path)
    handle = _open_lock_file(path.with_name(f"{path.name}.lock"))
    try:
        if not _take(handle):
            raise UsageError(f"{path}: another agent serves it; stop that one first")
        yield
    finally:
        os.close(handle)


def _take(handle: int) -> bool:
    """Lock the open file; return False if it stays locked.

    A process that an agent was just starting when it was killed has the agent's lock until execve.
    """
    end = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                return False
            time.sleep(0.01)
        else:
            return True


def _open_lock_file(path: Path) -> int:
    try:
        make_directory(path.parent, 0o755)
        check_directory(path.parent)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise SchedhookError(f"{path}: cannot open the agent's lock: {error.strerror}") from error


def check_directory(directory: Path) -> None:
    """Raise SchedhookError if other users may write the directory, OSError if there is none."""
    if problem := explain_untrusted(directory):
        raise SchedhookError(f"{problem}; chown it to this user and chmod go-w")


def listen(path: Path, mode: int) -> socket.socket:
    """Return a listening socket of that mode, which replaces an earlier agent's.

    The caller has locked the path. Raise UsageError if it is too long, SchedhookError if something
    else than a socket is there, or if the socket cannot be created.
    """
    _check_place(path)
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        path.unlink(missing_ok=True)
        server.bind(str(path))
        path.chmod(mode)
        server.listen(_BACKLOG)
        server.setblocking(False)
    except OSError as error:
        server.close()
        raise SchedhookError(f"{path}: {error.strerror or error}") from error
    return server


def _check_place(path: Path) -> None:
    """Raise an error if no socket can be at `path`; see unix(7) and `listen`."""
    if len(os.fsencode(path)) > _LONGEST_PATH:
        most = f"a socket's path has {_LONGEST_PATH} bytes at most"
        raise UsageError(f"{str(path)[:40]}…: {most}; name a shorter one")
    with contextlib.suppress(OSError):  # what is to be created there says why it cannot be
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise SchedhookError(f"{path}: exists and is not a socket; move it away")
