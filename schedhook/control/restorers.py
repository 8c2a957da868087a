"""Find the code by which a program ends its signal handlers, rt_sigreturn(2).

The C library has it, since the kernel returns from no handler without it: sigaction(2) names it as
the restorer. `_core.remote_restorers` says what it looks like.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from schedhook.backends.native import _core
from schedhook.host.mappings import MapsLine, read_code
from schedhook.values.errors import RefusedError

_CHUNK = 1 << 20
_MOST = 256 << 20
"""Bytes of a process's code that are searched: a program can map any amount."""
_LIBRARY = b"libc"


class Restorers:
    """Finds restorers, and remembers where in a file each one is."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._known: dict[tuple[str, int, int], int] = {}

    def find(self, pid: int, tid: int, memory: int) -> int:
        """Return the address of the restorer in the process whose /proc/PID/mem is `memory`.

        Raise RefusedError if there is none.
        """
        if not (forms := _core.remote_restorers()):
            raise RefusedError("only x86-64 is supported")
        left = _MOST
        for mapping in _likely_first(read_code(pid, self._root, task=tid)):
            key = (mapping.device, mapping.inode, mapping.offset)
            if key not in self._known:
                size = min(mapping.end - mapping.start, left)
                left -= size
                if (place := _search(memory, mapping, size, forms)) is None:
                    continue
                self._known[key] = place
            address = mapping.start + self._known[key]
            if is_restorer(memory, address):
                return address
        raise RefusedError("its program has no code to return from a signal handler")


def is_restorer(memory: int, address: int) -> bool:
    """Return whether the restorer is at that address."""
    return any(_read(memory, address, len(form)) == form for form in _core.remote_restorers())


def _likely_first(mappings: Iterable[MapsLine]) -> list[MapsLine]:
    return sorted(mappings, key=lambda each: _LIBRARY not in each.name.rpartition(b"/")[2])


def _search(memory: int, mapping: MapsLine, size: int, forms: Iterable[bytes]) -> int | None:
    """Return the offset of the first restorer in the mapping's first `size` bytes, or None."""
    longest = max(map(len, forms))
    for start in range(mapping.start, mapping.start + size, _CHUNK):
        code = _read(memory, start, _CHUNK + longest)
        found = [place for form in forms if (place := code.find(form)) >= 0]
        if found:
            return start - mapping.start + min(found)
    return None


def _read(memory: int, address: int, size: int) -> bytes:
    try:
        return os.pread(memory, size, address)
    except OSError:
        return b""  # not mapped any more
