"""What is in a directory of /proc, /sys or a cgroup hierarchy."""

from __future__ import annotations

import os
from pathlib import Path


def list_directories(path: Path) -> list[str]:
    """Return the names of the directories in `path`, sorted, without symbolic links.

    Raise OSError if `path` cannot be listed.
    """
    with os.scandir(path) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))


def find_directories(path: Path) -> list[str]:
    """Return the same, or none if `path` is gone or not readable by this user."""
    try:
        return list_directories(path)
    except OSError:
        return []


def list_numbers(path: Path) -> list[int]:
    """Return the names in `path` that are numbers, such as those of processes, in ascending order.

    Raise OSError if `path` cannot be listed.
    """
    return sorted(int(name) for name in os.listdir(path) if name.isdigit())  # noqa: PTH208
