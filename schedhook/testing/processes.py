"""Real processes whose pages are on given nodes.

with NativeProcess(nodes=[0] * 64 + [1] * 64) as process:
    assert numa_maps(process.pid, process.start) == {0: 64 * 4096, 1: 64 * 4096}
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import signal
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from schedhook.host.topology import Topology, read_topology

_MAP_HUGETLB, _MAP_NORESERVE, _PROT_NONE = 0x40000, 0x4000, 0
_COMMAND = struct.Struct("cQ")
_LIBC = ctypes.CDLL(None, use_errno=True)


class NativeProcess:
    """A child process with one mapping, [start, end), whose n-th page is on node `nodes[n]`.

    A page whose node is None is not touched. Each page is touched by a processor of its node, so
    every node named must have a processor and free memory. The process then sleeps until the test
    calls a method.

    `page_size` is that of a pool's huge pages, if not the base page; `folio_size` is the size of
    transparent huge pages; both in bytes. `share_with` maps the memory of another process, which
    was made with `shared`. `user` is the uid under which the process runs. Raise RuntimeError if
    the process cannot touch its memory.
    """

    def __init__(
        self,
        *,
        nodes: Sequence[int | None],
        page_size: int = mmap.PAGESIZE,
        folio_size: int = 0,
        shared: bool = False,
        share_with: NativeProcess | None = None,
        user: int | None = None,
    ) -> None:
        self.unit = folio_size or page_size
        self._block: _Block = (
            share_with._block
            if share_with
            else _Block(len(nodes) * self.unit, page_size, folio_size, shared)
        )
        self.start = self._block.start
        self.end = self.start + len(nodes) * self.unit
        theirs, self._commands = os.pipe()
        self._answers, answers = os.pipe()
        topology = read_topology()
        self.pid = os.fork()
        if self.pid == 0:
            status = 1
            try:
                os.close(self._commands)
                os.close(self._answers)
                if user is not None:
                    os.setuid(user)
                self._live(nodes, topology, theirs, answers)
                status = 0
            finally:
                os._exit(status)
        os.close(theirs)
        os.close(answers)
        self._wait("touch its memory")

    def hold(self, index: int) -> None:
        """Hold a reference to page `index`, which prevents its migration; vmsplice(2)."""
        os.write(self._commands, _COMMAND.pack(b"h", index))
        self._wait("hold a page")

    def release(self) -> None:
        """Release every page that is held."""
        os.write(self._commands, _COMMAND.pack(b"r", 0))
        self._wait("release its pages")

    def end_now(self) -> None:
        """Kill the process and wait for it."""
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            os.close(self._commands)
            os.close(self._answers)
            self.pid = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.end_now()

    def _wait(self, what: str) -> None:
        if os.read(self._answers, 1) != b"k":
            raise RuntimeError(f"the process could not {what}")

    def _live(
        self, nodes: Sequence[int | None], topology: Topology, commands: int, answers: int
    ) -> None:
        """Touch the pages, then carry out commands until the parent closes the pipe."""
        on = None
        for index, node in enumerate(nodes):
            if node is not None:
                if node != on:
                    os.sched_setaffinity(0, topology.cpus_of([node]))
                    on = node
                self._block.touch(self.start + index * self.unit)
        out, into = os.pipe()
        held = 0
        os.write(answers, b"k")
        while order := os.read(commands, _COMMAND.size):
            word, index = _COMMAND.unpack(order)
            if word == b"h":
                held += _vmsplice(into, self.start + index * self.unit)
            else:
                os.read(out, held)
                held = 0
            os.write(answers, b"k")


class _Block:
    """Anonymous memory that merges with no other mapping; this process does not touch it."""

    def __init__(self, size: int, page_size: int, folio_size: int, shared: bool) -> None:
        flags = mmap.MAP_ANONYMOUS | (mmap.MAP_SHARED if shared else mmap.MAP_PRIVATE)
        align = max(folio_size, mmap.PAGESIZE)
        if page_size > mmap.PAGESIZE:
            flags |= _MAP_HUGETLB | _MAP_NORESERVE
            self._memory = mmap.mmap(-1, size, flags=flags)
            self.start = self._address()
            return
        # Inaccessible pages on both sides keep the kernel from merging it with a neighbour.
        self._memory = mmap.mmap(-1, size + 2 * align + mmap.PAGESIZE, flags=flags)
        self.start = -(-(self._address() + mmap.PAGESIZE) // align) * align
        for guard in (self.start - mmap.PAGESIZE, self.start + size):
            if _LIBC.mprotect(ctypes.c_void_p(guard), mmap.PAGESIZE, _PROT_NONE):
                raise OSError(ctypes.get_errno(), "mprotect")
        with contextlib.suppress(OSError):  # a kernel without huge pages
            self._memory.madvise(mmap.MADV_HUGEPAGE if folio_size else mmap.MADV_NOHUGEPAGE)

    def _address(self) -> int:
        return ctypes.addressof(ctypes.c_char.from_buffer(self._memory))

    def touch(self, address: int) -> None:
        ctypes.c_char.from_address(address).value = b"x"


class _Vector(ctypes.Structure):
    """struct iovec"""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


def _vmsplice(pipe: int, address: int) -> int:
    """Put the page at `address` into the pipe without copying it; return its size in bytes."""
    vector = _Vector(address, mmap.PAGESIZE)
    put = int(_LIBC.vmsplice(pipe, ctypes.byref(vector), ctypes.c_size_t(1), 0))
    if put != mmap.PAGESIZE:
        raise OSError(ctypes.get_errno(), "vmsplice")
    return put


def numa_maps(pid: int, start: int) -> dict[int, int]:
    """Return bytes per node of the mapping that begins at `start`, from /proc/PID/numa_maps.

    No code is shared with what is tested. Raise LookupError if there is no such mapping.
    """
    for line in Path(f"/proc/{pid}/numa_maps").read_text().splitlines():
        address, _, *words = line.split()
        if int(address, 16) == start:
            values = dict(word.partition("=")[::2] for word in words)
            unit = int(values.get("kernelpagesize_kB", 0)) << 10
            return {int(key[1:]): int(n) * unit for key, n in values.items() if _is_count(key)}
    raise LookupError(f"process {pid} has no mapping that begins at {start:#x}")


def _is_count(key: str) -> bool:
    return key[:1] == "N" and key[1:].isdigit()


@contextlib.contextmanager
def huge_page_pool(node: int, size: int, pages: int) -> Iterator[None]:
    """Have `pages` free huge pages of `size` bytes in the node's pool for the block, as root.

    Those that are missing are added, and removed at its end.

    Raise RuntimeError if the pool then has fewer free pages: the node has no such memory.
    """
    base = f"/sys/devices/system/node/node{node}/hugepages/hugepages-{size >> 10}kB"
    total, free = Path(base, "nr_hugepages"), Path(base, "free_hugepages")
    before = total.read_text()
    total.write_text(str(int(before) + max(0, pages - int(free.read_text()))))
    try:
        if int(free.read_text()) < pages:
            raise RuntimeError(f"node {node} has no memory for {pages} huge pages of {size} bytes")
        yield
    finally:
        total.write_text(before)
