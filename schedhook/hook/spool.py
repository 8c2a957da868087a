"""Read the spool: messages that hooks left while no agent answered."""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from schedhook.hook import delivery, fallback
from schedhook.values.errors import SchedhookError

_STALE_SECONDS = 3600.0


def read_spool(directory: Path) -> Iterator[tuple[Path, bytes]]:
    """Yield each message with its path, oldest first; the caller deletes those that it accepts.

    Incomplete files that killed hooks left are deleted after an hour. Raise SchedhookError if
    another user could have written to the directory.
    """
    try:
        fallback.check_spool(str(directory))
        names = sorted(entry.name for entry in directory.iterdir())
    except FileNotFoundError:
        return
    except OSError as error:
        raise SchedhookError(f"{directory}: {error.strerror}") from error
    except fallback.NotKept as problem:
        raise SchedhookError(f"spool not used: {problem}") from None
    for name in names:
        path = directory / name
        with contextlib.suppress(OSError):  # deleted since, or not deletable
            if name.endswith(".event"):
                raw = _read_message(path)
                if raw is not None:
                    yield path, raw
            elif name.endswith(".tmp") and time.time() - path.lstat().st_mtime > _STALE_SECONDS:
                path.unlink()


def count_spool(directory: Path) -> int:
    """Return the number of messages. Raise SchedhookError if this user may not list them."""
    try:
        return sum(1 for entry in directory.iterdir() if entry.name.endswith(".event"))
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise SchedhookError(f"{directory}: {error.strerror}") from error


def _read_message(path: Path) -> bytes | None:
    """Return the message, None if the file is not a regular file of this user."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError:
        return None
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            return None
        return os.read(handle, delivery.MOST_BYTES + 1)
    finally:
        os.close(handle)
