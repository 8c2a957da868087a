"""Files and directories that stay open, so that looking for a change costs one system call."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

_MAX_FILE_BYTES = 4096
_MAX_PARENTS = 64


class OpenFile:
    """A small file that is read again and again. Raise OSError if it cannot be opened or read."""

    __slots__ = ("_most", "descriptor", "text")

    def __init__(self, path: Path, most: int = _MAX_FILE_BYTES) -> None:
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._most = most
        self.text = self.read()

    def read(self) -> bytes:
        """Return the file's first `most` bytes."""
        return os.pread(self.descriptor, self._most, 0)

    def changed(self) -> bool:
        """Read the file, and return whether its text differs from the last time."""
        before, self.text = self.text, self.read()
        return self.text != before

    def close(self) -> None:
        os.close(self.descriptor)


class OpenDirectory:
    """A directory and how many directories are in it: its number of links."""

    __slots__ = ("_descriptor", "_links")

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._links = os.fstat(self._descriptor).st_nlink

    def changed(self) -> bool:
        """Return whether the number of directories differs from the last time. Raise OSError."""
        before, self._links = self._links, os.fstat(self._descriptor).st_nlink
        return self._links != before

    def is_at(self, path: Path) -> bool:
        """Return whether `path` still leads to this directory."""
        try:
            return os.path.samestat(path.stat(), os.fstat(self._descriptor))
        except OSError:
            return False

    def close(self) -> None:
        os.close(self._descriptor)


class ParentDirectories:
    """The directories above jobs' cgroups, two levels up. They change if a job comes or goes."""

    def __init__(self) -> None:
        self._open: dict[Path, OpenDirectory] = {}

    def add(self, cgroups: Iterable[Path]) -> None:
        """Open the directories above these cgroups. Those that cannot be opened are left out."""
        for cgroup in cgroups:
            for path in cgroup.parents[:2]:
                if path not in self._open and len(self._open) < _MAX_PARENTS:
                    with contextlib.suppress(OSError):
                        self._open[path] = OpenDirectory(path)

    def changed(self) -> bool:
        """Return whether any of them has changed."""
        changed = False
        for directory in self._open.values():
            with contextlib.suppress(OSError):
                changed = directory.changed() or changed
        return changed

    def close_removed(self) -> None:
        """Close directories that were removed, or replaced by others of the same name."""
        for path, directory in list(self._open.items()):
            if not directory.is_at(path):
                del self._open[path]
                directory.close()

    def close(self) -> None:
        for directory in self._open.values():
            directory.close()
        self._open.clear()
