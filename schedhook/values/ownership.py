"""Checks that only root and this process's user can change what it acts on."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def is_root_or_self(uid: int) -> bool:
    """Return whether this process trusts user `uid`."""
    return uid in (0, os.geteuid())


def explain_untrusted(path: Path, status: os.stat_result | None = None) -> str | None:
    """Return who else may change this file or directory, in words; None if no other user may.

    `status`: that of the open file, if it is open. Raise OSError if the file cannot be examined.
    """
    status = path.stat() if status is None else status
    if not is_root_or_self(status.st_uid):
        return f"{path} belongs to user {status.st_uid}"
    if status.st_mode & _OTHERS:
        return f"{path} may be written by others"
    return None


def explain_untrusted_parents(path: Path) -> str | None:
    """Return the same for the directories above `path`, and above the file that it links to.

    In a sticky directory like /tmp, users cannot replace each other's files.
    """
    for directory in _parents(path):
        status = directory.stat()
        if not (status.st_mode & stat.S_ISVTX and is_root_or_self(status.st_uid)):
            found = explain_untrusted(directory, status)
            if found:
                return found
    return None


def make_directory(path: Path, mode: int) -> None:
    """Make the directory `path` with this mode, and missing ones above it with 0755.

    The umask does not matter: whatever a scheduler or an administrator's shell has set, the
    directories above are neither writable nor closed to other users. Raise OSError.
    """
    if path.is_dir():
        return
    make_directory(path.parent, 0o755)
    with contextlib.suppress(FileExistsError):  # another process has just made it
        path.mkdir(mode=mode)
        path.chmod(mode)


def explain_untrusted_tree(path: Path) -> str | None:
    """Return the same for a file, or for a directory and everything in it."""
    found = explain_untrusted(path)
    if found or not path.is_dir():
        return found
    for directory, _, names in os.walk(path):
        for each in (Path(directory), *(Path(directory, name) for name in names)):
            found = explain_untrusted(each)
            if found:
                return found
    return None


def _parents(path: Path) -> Iterator[Path]:
    absolute = Path(os.path.abspath(path))  # noqa: PTH100 - keeps symbolic links
    yield from dict.fromkeys((*absolute.parents, *absolute.resolve().parents))
