"""Reading files of cgroups, which can be removed at any time."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from schedhook.host.listing import find_directories, list_directories
from schedhook.values.errors import NoPermissionError, SchedhookError
from schedhook.values.sets import IdSet

_Set = TypeVar("_Set", bound=IdSet)


def read_text(path: Path) -> str | None:
    """Return the file's text without the blanks around it; None if there is no such file."""
    with ignoring_removal(path):
        return path.read_bytes().decode("ascii", "replace").strip()
    return None


def read_numbers(path: Path) -> list[int]:
    """Return the numbers in the file. Raise OSError, and SchedhookError for other text."""
    text = path.read_bytes()
    with _parsing(path):
        return [int(word) for word in text.split()]


def parse_set(kind: type[_Set], text: str, path: Path) -> _Set:
    """Return the ids in `text`, which was read from `path`. Raise SchedhookError."""
    with _parsing(path):
        return kind.parse(text)


def subtree(path: Path) -> Iterator[Path]:
    """Yield `path` and the directories below it, parents first, siblings sorted by name.

    Directories that are removed during the walk are skipped. Raise NoPermissionError if one may
    not be listed.
    """
    pending = [path]
    while pending:
        current = pending.pop()
        yield current
        with ignoring_removal(current):
            pending.extend(current / name for name in reversed(list_directories(current)))


def has_processes(path: Path, version: int) -> bool:
    """Return whether a process is in the cgroup, or in one below it, that has not exited."""
    if version == 2:
        return "populated 0" not in (read_text(path / "cgroup.events") or "")
    return bool(read_text(path / "cgroup.procs")) or any(
        has_processes(path / name, version) for name in find_directories(path)
    )


@contextlib.contextmanager
def ignoring_removal(path: Path) -> Iterator[None]:
    """End the block quietly if the cgroup was removed; turn other errors into SchedhookError."""
    try:
        yield
    except PermissionError:
        raise NoPermissionError(f"{path}: not permitted; run as root") from None
    except OSError as error:
        # ENODEV: opened before the cgroup was removed, read after.
        if error.errno not in (errno.ENOENT, errno.ENODEV):
            raise SchedhookError(f"cannot read {path}: {error.strerror}") from error


@contextlib.contextmanager
def _parsing(path: Path) -> Iterator[None]:
    """Raise SchedhookError for text that the kernel would not write."""
    try:
        yield
    except ValueError as error:
        raise SchedhookError(f"cannot parse {path}: {error}") from None
