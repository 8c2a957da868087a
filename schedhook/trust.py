"""Whether others than root, and the user of this process, can change what it acts on."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def is_root_or_self(uid: int) -> bool:
    """Whether user `uid` may tell this process what to do."""
    return uid in (0, os.geteuid())


def misgiving(path: Path, status: os.stat_result | None = None) -> str | None:
    """Who else may change this file or directory, in words; None where nobody may.

    `status`: of the file as it is open. OSError where there is nothing to look at.
    """
    status = path.stat() if status is None else status
    if not is_root_or_self(status.st_uid):
        return f"{path} belongs to user {status.st_uid}"
    if status.st_mode & _OTHERS:
        return f"{path} may be written by others"
    return None


def misgiving_on_the_way(path: Path) -> str | None:
    """The same for the directories that lead to `path`, by its name and by where that leads.

    In a directory like /tmp (sticky) nobody can replace what belongs to another.
    """
    for directory in _ways(path):
        status = directory.stat()
        if not (status.st_mode & stat.S_ISVTX and is_root_or_self(status.st_uid)):
            found = misgiving(directory, status)
            if found:
                return found
    return None


def _ways(path: Path) -> Iterator[Path]:
    absolute = Path(os.path.abspath(path))  # noqa: PTH100 - symbolic links are to stay
    yield from dict.fromkeys((*absolute.parents, *absolute.resolve().parents))


def misgiving_below(path: Path) -> str | None:
    """The same for a file, or a directory and all that is in it."""
    found = misgiving(path)
    if found or not path.is_dir():
        return found
    for directory, _, names in os.walk(path):
        for each in (Path(directory), *(Path(directory, name) for name in names)):
            found = misgiving(each)
            if found:
                return found
    return None
