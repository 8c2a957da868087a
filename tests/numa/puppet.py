"""A process that does what a test says (puppet.c), and what the kernel says of its pages."""

from __future__ import annotations

import ctypes
import mmap
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Self

from tests.numa.jobs import numa_maps_of
from tests.numa.programs import program

PAGE = mmap.PAGESIZE
HUGE = 2 << 20
HOME = 3
"""The node of everything that a test has not asked for: the program's own memory."""

_FIRST_ADDRESS, _APART = 0x1000_0000_0000, 1 << 32
_MPOL_DEFAULT, _MPOL_BIND = 0, 2
_MPOL_MF_MOVE_ALL = 4
_MAP_FIXED_NOREPLACE = 0x100000
_LIBC = ctypes.CDLL(None, use_errno=True)


class Call(IntEnum):
    """Numbers of system calls on x86-64."""

    OPEN = 2
    CLOSE = 3
    MMAP = 9
    MPROTECT = 10
    MUNMAP = 11
    IOCTL = 16
    PWRITE = 18
    MADVISE = 28
    SHMGET = 29
    SHMAT = 30
    SHMCTL = 31
    FSYNC = 74
    FTRUNCATE = 77
    SET_MEMPOLICY = 238
    MOVE_PAGES = 279
    PERF_EVENT_OPEN = 298
    USERFAULTFD = 323
    MLOCK2 = 325
    MEMFD_SECRET = 447


class Advice(IntEnum):
    """<asm/mman-common.h>"""

    DONTNEED = 4
    FREE = 8
    MERGEABLE = 12
    HUGEPAGE = 14
    NOHUGEPAGE = 15
    PAGEOUT = 21


@dataclass(frozen=True, slots=True)
class Memory:
    """Addresses [start, start + size)."""

    start: int
    size: int

    @property
    def pages(self) -> range:
        return range(self.start, self.start + self.size, PAGE)

    def part(self, first: int, last: int) -> Memory:
        """Its pages number `first` up to, not including, `last`."""
        return Memory(self.start + first * PAGE, (last - first) * PAGE)


class Puppet:
    """The process. Its own memory is on node HOME: a test can count every page elsewhere."""

    def __init__(self, *, user: int | None = None) -> None:
        self.process = subprocess.Popen(
            ["numactl", f"--membind={HOME}", program("puppet", HOME)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            user=user,
            group=user,
        )
        self.pid = self.process.pid
        self.scratch = self._answer()
        self._next = _FIRST_ADDRESS

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream
            stream.close()

    # -- orders ----------------------------------------------------------------------------------

    def say(self, *words: object) -> int:
        assert self.process.stdin
        print(*(int(word) if isinstance(word, int) else word for word in words),
              file=self.process.stdin)  # fmt: skip
        return self._answer()

    def call(self, number: Call, *arguments: int) -> int:
        """A system call that has to succeed; its result."""
        result = self.say("call", number, *arguments)
        assert result >= 0, f"{number.name}: {os.strerror(-result)}"
        return result

    def later(self, number: Call, *arguments: int) -> None:
        """A system call in another thread, whose end nobody waits for."""
        assert self.say("later", number, *arguments) == 0

    def pass_bytes(self, data: bytes) -> int:
        """Put an argument that is passed by address there; the address."""
        assert self.say("poke", self.scratch, data.hex()) == len(data)
        return self.scratch

    def open(self, path: Path, flags: int) -> int:
        return self.call(Call.OPEN, self.pass_bytes(bytes(path) + b"\0"), flags, 0o600)

    def map(
        self,
        size: int,
        *,
        flags: int = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS,
        file: int = -1,
        protection: int = mmap.PROT_READ | mmap.PROT_WRITE,
        huge: bool = False,
    ) -> Memory:
        """A mapping that no other merges with, untouched; aligned to huge pages."""
        start = self.call(
            Call.MMAP, self._next, size, protection, flags | _MAP_FIXED_NOREPLACE, file, 0
        )
        self._next += _APART
        memory = Memory(start, size)
        if flags & mmap.MAP_ANONYMOUS:
            self.advise(memory, Advice.HUGEPAGE if huge else Advice.NOHUGEPAGE)
        return memory

    def fill(self, memory: Memory, node: int, period: int = 1 << 40) -> None:
        """Write to it, on that node; pages that are `period` apart get the same content."""
        self.bind(node)
        self.say("fill", memory.start, memory.size, period)
        self.bind(HOME)

    def bind(self, node: int | None) -> None:
        """Have all its next pages on that node; None: wherever the kernel likes."""
        if node is None:
            self.call(Call.SET_MEMPOLICY, _MPOL_DEFAULT, 0, 0)
            return
        mask = self.pass_bytes((1 << node).to_bytes(8, "little"))
        self.call(Call.SET_MEMPOLICY, _MPOL_BIND, mask, 65)

    def anonymous(self, pages: int, node: int = 0) -> Memory:
        """So many small pages on a node."""
        memory = self.map(pages * PAGE)
        self.fill(memory, node)
        return memory

    def advise(self, memory: Memory, advice: Advice) -> None:
        self.call(Call.MADVISE, memory.start, memory.size, advice)

    def thin(self, memory: Memory) -> None:
        """Give back every other page."""
        assert self.say("thin", memory.start, memory.size) == 0

    def fork(self) -> int:
        """Make a child that shares all its pages; the child's number."""
        return self.say("fork", 0)

    def threads(self) -> int:
        """How many it has: one, unless calls of `later` are not over."""
        return len(list(Path(f"/proc/{self.pid}/task").iterdir()))

    def waits(self) -> bool:
        """Whether a call of `later` has come as far as to wait for a disk."""
        tasks = Path(f"/proc/{self.pid}/task").glob("*/stat")
        return any(stat.read_text().rpartition(")")[2].split()[0] == "D" for stat in tasks)

    def protect(self, memory: Memory, protection: int) -> None:
        self.call(Call.MPROTECT, memory.start, memory.size, protection)

    def read(self, memory: Memory) -> int:
        return self.say("read", memory.start, memory.size)

    def is_intact(self, memory: Memory, period: int = 1 << 40) -> bool:
        """Whether it holds what was filled in."""
        return self.say("check", memory.start, memory.size, period) == 0

    # -- what the kernel says --------------------------------------------------------------------

    def residency(self, memory: Memory) -> dict[int, int]:
        """Bytes per node, read from numa_maps by other means than the project's."""
        return numa_maps_of(self.pid, memory.start, memory.start + memory.size)

    def status(self, addresses: Sequence[int], node: int | None = None) -> list[int]:
        """What move_pages(2) says of each page: the node where it is, or -errno; with `node` after
        trying to move it there."""
        count = len(addresses)
        status = (ctypes.c_int * count)(*[-9999] * count)
        nodes = None if node is None else (ctypes.c_int * count)(*[node] * count)
        _LIBC.syscall(
            Call.MOVE_PAGES, self.pid, ctypes.c_ulong(count),
            (ctypes.c_void_p * count)(*addresses), nodes, status, _MPOL_MF_MOVE_ALL,
        )  # fmt: skip
        return list(status)

    def _answer(self) -> int:
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line, f"the puppet ended with {self.process.wait()}"
        return int(line)
