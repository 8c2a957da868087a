"""Reading small files of /sys and the `meminfo` of a node or of the host.

A file that is gone reads as empty: a node can go offline between the listing and the reading.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from schedhook.host.listing import find_directories
from schedhook.values.errors import SchedhookError
from schedhook.values.sets import IdSet

_Set = TypeVar("_Set", bound=IdSet)

_MOST_DIGITS = 20
"""More digits than the kernel writes."""


def read_set(path: Path, kind: type[_Set]) -> _Set:
    """Return the ids in the file, in the kernel's list format. Raise SchedhookError."""
    try:
        return kind.parse(read_text(path))
    except ValueError as error:
        raise SchedhookError(f"cannot parse {path}: {error}") from None


def read_number(path: Path) -> int:
    """Return the number in the file; 0 if there is none."""
    text = read_text(path).strip()
    return int(text) if _is_number(text) else 0


def read_words(path: Path) -> list[int]:
    """Return the numbers in the file, without what is not a number."""
    return [int(word) for word in read_text(path).split() if _is_number(word)]


def read_meminfo(path: Path) -> dict[str, int]:
    """Return bytes per name, from a node's meminfo (`Node 0 MemFree: 12 kB`) or /proc/meminfo."""
    sizes: dict[str, int] = {}
    for line in read_text(path).splitlines():
        name, _, value = line.rpartition(":")
        names, words = name.split(), value.split()
        if names and len(words) == 2 and words[1] == "kB" and _is_number(words[0]):
            sizes[names[-1]] = int(words[0]) << 10
    return sizes


def list_suffixes(path: Path, prefix: str, unit: str = "") -> list[int]:
    """Return the numbers between `prefix` and `unit` in the names of the directories in `path`."""
    named = (name for name in find_directories(path) if name.startswith(prefix))
    numbers = (name.removeprefix(prefix).removesuffix(unit) for name in named)
    return sorted(int(number) for number in numbers if _is_number(number))


def _is_number(text: str) -> bool:
    return text.isdigit() and len(text) <= _MOST_DIGITS


def read_text(path: Path) -> str:
    """Return the file's text; empty if it cannot be read."""
    try:
        return path.read_text(encoding="ascii", errors="replace").replace("\0", "")
    except OSError:
        return ""
