"""Keep two windows from being open on the same pages at once.

Each would take the other for a process that maps these pages, and leave them out: `show` or the
metrics beside a relocation, or the relocations of two jobs that share an object. Only root's
windows exclude each other, since only root's lock file is out of users' reach.
"""

from __future__ import annotations

import fcntl
import os
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from schedhook.values.ownership import explain_untrusted, make_directory

FILE = Path("/run/schedhook/windows.lock")
_PATIENCE = 10.0
"""Seconds to wait for another window: that of a stopped process stays open."""
_INTERVAL = 0.002
_GRAIN = 2 << 20
"""Bytes of an object for each byte of the lock file; what threads sweep is aligned to it."""


@contextmanager
def window_lock(file: int, offset: int, size: int) -> Iterator[None]:
    """Lock the window [offset, offset + size) of the object `file` for the block."""
    lock = _open()
    if lock is None:
        yield
        return
    try:
        _wait(lock, *_bytes_of(file, offset, size))
        yield
    finally:
        os.close(lock)


def _open() -> int | None:
    """Return a descriptor of the lock file, which has locks of its own; None without one."""
    if os.geteuid() != 0:
        return None
    with suppress(OSError):
        make_directory(FILE.parent, 0o755)
        if not explain_untrusted(FILE.parent):
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            return os.open(FILE, flags, 0o600)
    return None


def _bytes_of(file: int, offset: int, size: int) -> tuple[int, int]:
    """Return the first byte of the lock file that stands for the window, and how many do.

    Two windows for which the same byte happens to stand only wait for each other.
    """
    status = os.fstat(file)
    its = hash((status.st_dev, status.st_ino)) & (1 << 30) - 1
    first, last = offset // _GRAIN, (offset + size - 1) // _GRAIN
    return (its << 32) + (first & (1 << 32) - 1), last - first + 1


def _wait(lock: int, first: int, count: int) -> None:
    """Lock the bytes; go on without the lock when the patience ends."""
    # struct flock, fcntl(2)
    request = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, first, count, 0)
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        with suppress(BlockingIOError):
            fcntl.fcntl(lock, fcntl.F_OFD_SETLK, request)
            return
        time.sleep(_INTERVAL)
