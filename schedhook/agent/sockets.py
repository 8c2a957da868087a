"""The agent's sockets: made where nobody else can take its place, and by one agent only."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

from schedhook.values.errors import SchedhookError, UsageError
from schedhook.values.ownership import explain_untrusted, make_directory


@contextlib.contextmanager
def lock(path: Path) -> Iterator[None]:
    """Be the only agent of the socket `path`, in a directory that is made where there is none.

    UsageError where there is another agent, or no name; SchedhookError where others may write the
    directory.
    """
    if not path.name:
        raise UsageError(f"the agent's socket is to be {str(path)!r}: name a file")
    name = path.with_name(f"{path.name}.lock")
    try:
        make_directory(path.parent, 0o755)
        check_directory(path.parent)
        handle = os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise SchedhookError(f"{name}: {error.strerror}") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"{path}: another agent serves it; stop that one first") from None
        yield
    finally:
        os.close(handle)


def check_directory(directory: Path) -> None:
    """SchedhookError where others may write it. OSError where there is none."""
    if others := explain_untrusted(directory):
        raise SchedhookError(f"{others}; chown it to this user and chmod go-w")


def listen(path: Path, mode: int) -> socket.socket:
    """A socket of that mode, with nobody else's in its place. Whoever calls has the lock."""
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISSOCK(path.lstat().st_mode):
                raise SchedhookError(f"{path}: is there and is no socket; move it away")
            path.unlink()
        server.bind(str(path))
        path.chmod(mode)
        server.listen(1024)
        server.setblocking(False)
    except OSError as error:
        server.close()
        raise SchedhookError(f"{path}: {error.strerror or error}") from error
    except SchedhookError:
        server.close()
        raise
    return server
