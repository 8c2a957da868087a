"""Files that are replaced as a whole."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_LONGEST_PREFIX = 40


def replace_file(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Put `data` in the place of `path` atomically, with the permissions `mode`.

    A symbolic link at `path` is replaced, not followed. The new file is first written to the
    same directory as `.NAME.RANDOM.tmp`, which remains only if the process is killed. Raise
    OSError.
    """
    name = f".{path.name[:_LONGEST_PREFIX]}.{os.urandom(8).hex()}.tmp"
    temporary = path.with_name(name)
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            os.fchmod(handle, mode)
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
