"""Memory in another process for the signal frame of a stopped thread, and for calls' arguments."""

from __future__ import annotations

import os
from array import array
from dataclasses import dataclass
from pathlib import Path

from schedhook.host.bounded import call_bounded
from schedhook.host.mappings import MapsLine, read_stack
from schedhook.host.page_sizes import BASE_PAGE
from schedhook.host.processes import open_pagemap
from schedhook.values.errors import RefusedError

SIZE = 64 << 10
_TOKEN_SIZE = 16
_FRAME_AT = 40 << 10
"""The frame is here. Below it is a stack, for a handler that runs if this process is killed."""

_MOST_PAGES = 1 << 16
"""Pages of a stack that are examined: a program can make it as large as it likes."""
_ALIGNMENT = 64
_RED_ZONE = 128
"""Bytes below the stack pointer that a program may use without moving it; x86-64 psABI."""


@dataclass(frozen=True, slots=True)
class Scratch:
    """Memory that was mapped into a process."""

    address: int
    token: bytes
    """Its first bytes. Another program that the process became has not got them there."""

    @classmethod
    def at(cls, address: int) -> Scratch:
        """Return new scratch memory at this address, of which the token is to be written."""
        return cls(address, os.urandom(_TOKEN_SIZE))

    @property
    def arguments(self) -> int:
        """The address of memory for arguments, some kilobytes."""
        return self.address + _ALIGNMENT

    @property
    def frame(self) -> int:
        """The address for a frame."""
        return self.address + _FRAME_AT

    def is_in(self, memory: int) -> bool:
        """Return whether it is in the address space whose /proc/PID/mem is `memory`."""
        try:
            return os.pread(memory, len(self.token), self.address) == self.token
        except OSError:
            return False


def place_on_stack(pid: int, tid: int, pointer: int, size: int, root: Path = Path("/")) -> int:
    """Return the address of `size` bytes on the first thread's stack that hold nothing.

    `pid` is the process, `tid` its stopped thread, `pointer` that thread's stack pointer. If it
    points elsewhere (coroutines, Go), pages count that were never touched. Raise RefusedError if
    there is no room.
    """
    stack = read_stack(pid, root, task=tid)
    if stack is not None and stack.start <= pointer <= stack.end:
        place = (pointer - _RED_ZONE - size) // _ALIGNMENT * _ALIGNMENT
        if tid == pid and place >= stack.start:
            return place
    elif stack is not None:
        place = _untouched(pid, tid, stack, size, root)
        if place:
            return place
    raise RefusedError("there is no room on its stack")


def _untouched(pid: int, tid: int, stack: MapsLine, size: int, root: Path) -> int:
    """Return the lowest address of pages that were never touched; 0 if none were found."""

    def read_entries() -> bytes:
        pagemap = open_pagemap(pid, tid, root)
        try:
            count = min((stack.end - stack.start) // BASE_PAGE, _MOST_PAGES)
            return os.pread(pagemap, count * 8, stack.start // BASE_PAGE * 8)
        finally:
            os.close(pagemap)

    entries = array("Q", call_bounded(pid, read_entries, root))
    needed = -(-size // BASE_PAGE)
    for page in range(len(entries) - needed + 1):
        if not any(entries[page : page + needed]):
            return stack.start + page * BASE_PAGE
    return 0
