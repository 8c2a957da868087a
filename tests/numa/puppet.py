"""A process that a test controls (puppet.c), and the kernel's view of its pages."""

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
HOME = 3
"""The node of the program's own memory, which no test asked for."""

UNWRITTEN = -9999
"""A status that the kernel has not written."""

_FIRST_ADDRESS, _APART = 0x1000_0000_0000, 1 << 32
_MPOL_DEFAULT, _MPOL_BIND = 0, 2
_MPOL_MF_MOVE_ALL = 4
_MAP_FIXED_NOREPLACE = 0x100000
_AT_FDCWD = -100
_MAP_NORESERVE, _MAP_HUGETLB = 0x4000, 0x40000
_LIBC = ctypes.CDLL(None, use_errno=True)


def _number(x86: int, generic: int) -> int:
    """Return this processor's number: of <asm/unistd_64.h>, or <asm-generic/unistd.h> (arm64)."""
    return x86 if os.uname().machine == "x86_64" else generic


class Call(IntEnum):
    """Numbers of system calls."""

    CLOSE = _number(3, 57)
    MMAP = _number(9, 222)
    MPROTECT = _number(10, 226)
    MUNMAP = _number(11, 215)
    IOCTL = _number(16, 29)
    PWRITE = _number(18, 68)
    MREMAP = _number(25, 216)
    MADVISE = _number(28, 233)
    SHMGET = _number(29, 194)
    SHMAT = _number(30, 196)
    SHMCTL = _number(31, 195)
    SOCKET = _number(41, 198)
    SETSOCKOPT = _number(54, 208)
    FSYNC = _number(74, 82)
    FTRUNCATE = _number(77, 46)
    CHROOT = _number(161, 51)
    SET_MEMPOLICY = _number(238, 237)
    MIGRATE_PAGES = _number(256, 238)
    OPENAT = _number(257, 56)
    UNSHARE = _number(272, 97)
    MOVE_PAGES = _number(279, 239)
    FALLOCATE = _number(285, 47)
    PERF_EVENT_OPEN = _number(298, 241)
    MEMFD_CREATE = _number(319, 279)
    BPF = _number(321, 280)
    USERFAULTFD = _number(323, 282)
    MLOCK2 = _number(325, 284)
    PIDFD_OPEN = _number(434, 434)
    MEMFD_SECRET = _number(447, 447)


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
        """Return its pages from number `first` up to, not including, `last`."""
        return Memory(self.start + first * PAGE, (last - first) * PAGE)


class Puppet:
    """The process. Its own memory is on node HOME, so a test can count all pages elsewhere."""

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

    # -- commands --------------------------------------------------------------------------------

    def say(self, *words: object) -> int:
        assert self.process.stdin
        print(*(int(word) if isinstance(word, int) else word for word in words),
              file=self.process.stdin)  # fmt: skip
        return self._answer()

    def call(self, number: Call, *arguments: int) -> int:
        """Make a system call, which must succeed; return its result."""
        result = self.say("call", number, *arguments)
        assert result >= 0, f"{number.name}: {os.strerror(-result)}"
        return result

    def later(self, number: Call, *arguments: int) -> None:
        """Make a system call in another thread; do not wait for its end."""
        assert self.say("later", number, *arguments) == 0

    def pass_bytes(self, data: bytes) -> int:
        """Store an argument that is passed by address; return the address."""
        assert self.say("poke", self.scratch, data.hex()) == len(data)
        return self.scratch

    def open(self, path: Path, flags: int) -> int:
        return self.call(Call.OPENAT, _AT_FDCWD, self.pass_bytes(bytes(path) + b"\0"), flags, 0o600)

    def map(
        self,
        size: int,
        *,
        flags: int = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS,
        file: int = -1,
        protection: int = mmap.PROT_READ | mmap.PROT_WRITE,
        huge: bool = False,
    ) -> Memory:
        """Make a mapping that does not merge with others, untouched, aligned to huge pages."""
        start = self.call(
            Call.MMAP, self._next, size, protection, flags | _MAP_FIXED_NOREPLACE, file, 0
        )
        self._next += _APART
        memory = Memory(start, size)
        if flags & mmap.MAP_ANONYMOUS and not flags & _MAP_HUGETLB:
            self.advise(memory, Advice.HUGEPAGE if huge else Advice.NOHUGEPAGE)
        return memory

    def map_huge_pages(self, size: int, page: int) -> Memory:
        """Map huge pages of that size, of the kernel's pool, without reserving them on HOME."""
        size_in_flags = page.bit_length() - 1 << 26
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE | _MAP_HUGETLB
        return self.map(size, flags=flags | size_in_flags)

    def shift(self, memory: Memory, distance: int) -> Memory:
        """Move the mapping to an address that lies `distance` behind a boundary of any folio."""
        may_move_fixed = 3
        start = self.call(
            Call.MREMAP, memory.start, memory.size, memory.size, may_move_fixed,
            self._next + distance,
        )  # fmt: skip
        self._next += _APART
        return Memory(start, memory.size)

    def fill(self, memory: Memory, node: int, period: int = 1 << 40) -> None:
        """Write to it on that node; pages that are `period` apart get the same content."""
        self.bind(node)
        self.say("fill", memory.start, memory.size, period)
        self.bind(HOME)

    def bind(self, node: int | None) -> None:
        """Allocate all its next pages on that node; None: as the kernel chooses."""
        if node is None:
            self.call(Call.SET_MEMPOLICY, _MPOL_DEFAULT, 0, 0)
            return
        mask = self.pass_bytes((1 << node).to_bytes(8, "little"))
        self.call(Call.SET_MEMPOLICY, _MPOL_BIND, mask, 65)

    def anonymous(self, pages: int, node: int = 0) -> Memory:
        """Map and fill this many small pages on a node."""
        memory = self.map(pages * PAGE)
        self.fill(memory, node)
        return memory

    def advise(self, memory: Memory, advice: Advice) -> None:
        self.call(Call.MADVISE, memory.start, memory.size, advice)

    def thin(self, memory: Memory) -> None:
        """Free every other page."""
        assert self.say("thin", memory.start, memory.size) == 0

    def fork(self) -> int:
        """Make a child that shares all its pages; return the child's number."""
        return self.say("fork", 0)

    def threads(self) -> int:
        """Return the number of its threads: one, unless calls of `later` still run."""
        return len(list(Path(f"/proc/{self.pid}/task").iterdir()))

    def waits(self) -> bool:
        """Return whether a call of `later` is waiting for a disk."""
        tasks = Path(f"/proc/{self.pid}/task").glob("*/stat")
        return any(stat.read_text().rpartition(")")[2].split()[0] == "D" for stat in tasks)

    def protect(self, memory: Memory, protection: int) -> None:
        self.call(Call.MPROTECT, memory.start, memory.size, protection)

    def read(self, memory: Memory) -> int:
        return self.say("read", memory.start, memory.size)

    def is_intact(self, memory: Memory, period: int = 1 << 40) -> bool:
        """Return whether the memory has the content that was written."""
        return self.say("check", memory.start, memory.size, period) == 0

    # -- the kernel's view ------------------------------------------------------------------------

    def residency(self, memory: Memory) -> dict[int, int]:
        """Return bytes per node from numa_maps, without the project's readers."""
        return numa_maps_of(self.pid, memory.start, memory.start + memory.size)

    def status(self, addresses: Sequence[int], node: int | None = None) -> list[int]:
        """Return the status of each page from move_pages(2): its node, or -errno.

        With `node`, try to move the pages there first.
        """
        count = len(addresses)
        status = (ctypes.c_int * count)(*[UNWRITTEN] * count)
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
