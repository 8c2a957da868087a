"""Single mappings of a process, from /proc/PID/maps; proc_pid_maps(5)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from schedhook.host._maps import MapsLine
from schedhook.host._proc import read, task_file

__all__ = ["MapsLine", "read_code", "read_stack"]

_STACK = b"[stack]"


def read_code(pid: int, root: Path = Path("/"), *, task: int) -> list[MapsLine]:
    """Return the executable mappings of files, as that thread has them, in ascending order."""
    found = _read(pid, root, task, lambda line: line.split(b" ", 2)[1][2:3] == b"x")
    return [mapping for mapping in found if mapping.has_file]


def read_stack(pid: int, root: Path = Path("/"), *, task: int) -> MapsLine | None:
    """Return the stack that the kernel made for the first thread; None if it is unmapped."""
    return next(iter(_read(pid, root, task, lambda line: line.endswith(_STACK))), None)


def _read(pid: int, root: Path, task: int, wanted: Callable[[bytes], bool]) -> list[MapsLine]:
    found = []
    for line in read(pid, task_file("maps", task), root).split(b"\n"):
        start, dash, rest = line.partition(b"-")
        if dash and wanted(line):
            found.append(MapsLine.parse(int(start, 16), rest))
    return found
