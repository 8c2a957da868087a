"""Whether others than root, and the user of this process, can change what it acts on; and
directories of which they cannot."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def is_root_or_self(uid: int) -> bool:
    """Whether user `uid` may tell this process what to do."""
    return uid in (0, os.geteuid())


def explain_untrusted(path: Path, status: os.stat_result | None = None) -> str | None:
    """Who else may change this file or directory, in words; None where nobody may.

    `status`: of the file as it is open. OSError where there is nothing to look at.
    """
    status = path.stat() if status is None else status
    if not is_root_or_self(status.st_uid):
        return f"{path} belongs to user {status.st_uid}"
    if status.st_mode & _OTHERS:
        return f"{path} may be written by others"
    return None


def explain_untrusted_parents(path: Path) -> str | None:
    """The same for the directories that lead to `path`, by its name and by where that leads.

    In a directory like /tmp (sticky) nobody can replace what belongs to another.
    """
    for directory in _ways(path):
        status = directory.stat()
        if not (status.st_mode & stat.S_ISVTX and is_root_or_self(status.st_uid)):
            found = explain_untrusted(directory, status)
            if found:
                return found
    return None


def make_directory(path: Path, mode: int) -> None:
    """Make `path` with this mode where there is none, and those above it with 0755, whatever umask
    a scheduler or an administrator's shell has given to this process: neither writable by others
    nor closed to users who are to pass. OSError."""
    if path.is_dir():
        return
    make_directory(path.parent, 0o755)
    with contextlib.suppress(FileExistsError):  # another process was faster
        path.mkdir(mode=mode)
        path.chmod(mode)


def _ways(path: Path) -> Iterator[Path]:
    absolute = Path(os.path.abspath(path))  # noqa: PTH100 - symbolic links are to stay
    yield from dict.fromkeys((*absolute.parents, *absolute.resolve().parents))


def explain_untrusted_tree(path: Path) -> str | None:
    """The same for a file, or a directory and all that is in it."""
    found = explain_untrusted(path)
    if found or not path.is_dir():
        return found
    for directory, _, names in os.walk(path):
        for each in (Path(directory), *(Path(directory, name) for name in names)):
            found = explain_untrusted(each)
            if found:
                return found
    return None
