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


@contextmanager
def window_lock(file: int, number: int) -> Iterator[None]:
    """Lock window `number` of the object `file` for the block."""
    status = os.fstat(file)
    # Each window has one byte of the lock file; two that have the same one only wait for longer.
    byte = hash((status.st_dev, status.st_ino, number)) & (1 << 62) - 1
    lock = _open()
    if lock is None:
        yield
        return
    try:
        _wait(lock, byte)
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


def _wait(lock: int, byte: int) -> None:
    """Lock the byte; go on without the lock when the patience ends."""
    # struct flock, fcntl(2)
    request = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0)
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        with suppress(BlockingIOError):
            fcntl.fcntl(lock, fcntl.F_OFD_SETLK, request)
            return
        time.sleep(_INTERVAL)
