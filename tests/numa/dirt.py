"""Memory of a host that has been up for long: nodes full of page cache, and of files in it."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from schedhook.host.page_sizes import read_page_sizes
from tests.balancing import setting
from tests.numa.jobs import MIB, free_bytes
from tests.numa.puppet import Call

LITTLE = 60
"""MiB that stay free on a node that is full otherwise: less than any job that needs room."""

PIECE = 32 << 10
"""Bytes; smaller than what a huge page needs."""
EACH = 1 << 40
"""Bytes of the disk for each node."""

_TRIES = 5
_MPOL_DEFAULT, _MPOL_BIND = 0, 2
_LIBC = ctypes.CDLL(None, use_errno=True)


@contextmanager
def allocating_on(node: int) -> Iterator[None]:
    """Let this thread allocate on the node only, for page cache and files in memory, too."""
    mask = ctypes.c_ulong(1 << node)
    _set_policy(_MPOL_BIND, ctypes.byref(mask), 65)
    try:
        yield
    finally:
        _set_policy(_MPOL_DEFAULT, None, 0)


def _set_policy(*arguments: object) -> None:
    if _LIBC.syscall(Call.SET_MEMPOLICY, *arguments):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "set_mempolicy")


@dataclass(kw_only=True, slots=True)
class PageCache:
    """Page cache: clean, of a disk that takes no time, and not written yet, of files."""

    disk: int
    """The file descriptor of the disk."""
    directory: Path
    ends: dict[int, int] = field(default_factory=dict)
    """To where a node's part of the disk has been read, in bytes."""

    def fill(self, node: int, leave: int = LITTLE) -> int:
        """Fill the node with clean cache until `leave` MiB are free; return the MiB of cache."""
        before = free_bytes(node)
        with allocating_on(node):
            for _ in range(5):
                wanted = free_bytes(node) - leave * MIB
                if wanted < MIB:
                    break
                end = self.ends.setdefault(node, node * EACH)
                os.posix_fadvise(self.disk, end, wanted, os.POSIX_FADV_WILLNEED)
                self.ends[node] = end + (wanted + PIECE - 1) // PIECE * PIECE
        return (before - free_bytes(node)) // MIB

    def punch(self, node: int, mib: int) -> None:
        """Drop that much of the node's clean cache in small pieces, which leaves fragments free."""
        end = self.ends[node]
        for piece in range(1, mib * MIB // PIECE + 1):
            start = end - 2 * piece * PIECE
            os.posix_fadvise(self.disk, start, PIECE, os.POSIX_FADV_DONTNEED)

    def dirty(self, node: int, mib: int) -> None:
        """Put cache that is not written yet on the node."""
        path = self.directory / f"dirty-{node}"
        path.unlink(missing_ok=True)
        write_zeros_on(node, path, mib)

    def remove(self) -> None:
        """Drop all of it, unwritten."""
        for file in self.directory.glob("dirty-*"):
            file.unlink()
        os.posix_fadvise(self.disk, 0, 0, os.POSIX_FADV_DONTNEED)


def write_zeros_on(node: int, path: Path, mib: int) -> None:
    """Append zeros to a file, whose pages are on the node."""
    zeros = bytes(MIB)
    with allocating_on(node), path.open("ab", buffering=0) as file:
        for _ in range(mib):
            file.write(zeros)


@contextmanager
def page_cache_on(device: Path, point: Path) -> Iterator[PageCache]:
    """Make a file system for the files on `device`, and the disk."""
    point.mkdir(exist_ok=True)
    few_inodes = ["-m0", "-N64", "-O", "^has_journal"]  # nothing left to initialise later
    subprocess.run(["mkfs.ext4", "-q", "-F", *few_inodes, device], check=True, timeout=60)
    subprocess.run(["mount", device, point], check=True, timeout=60)
    try:
        with null_disk() as disk:
            yield PageCache(disk=disk, directory=point)
    finally:
        subprocess.run(["umount", point], check=True, timeout=120)


@contextmanager
def null_disk() -> Iterator[int]:
    """Open a disk that reads nothing in no time, and all that is asked for at once."""
    options = ["gb=4096", "nr_devices=1", "queue_mode=0", "irqmode=0", "bs=4096"]
    subprocess.run(["modprobe", "null_blk", *options], check=True, timeout=60)
    Path("/sys/block/nullb0/queue/read_ahead_kb").write_text(str(1 << 22))
    disk = os.open("/dev/nullb0", os.O_RDONLY)
    try:
        yield disk
    finally:
        os.close(disk)


@contextmanager
def tmpfs(point: Path) -> Iterator[Path]:
    """Mount a tmpfs."""
    point.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2G", "none", point], check=True, timeout=60)
    try:
        yield point
    finally:
        subprocess.run(["umount", point], check=True, timeout=60)


def fill_with_files(directory: Path, node: int, leave: int = LITTLE) -> int:
    """Write to a file of a tmpfs until the node has `leave` MiB free; return the MiB written."""
    mib = free_bytes(node) // MIB - leave
    write_zeros_on(node, directory / f"file-{node}", mib)
    return mib


@contextmanager
def taken(node: int, leave: int) -> Iterator[None]:
    """Take memory of the node, which the kernel cannot reclaim, until `leave` MiB are free.

    It is a pool of huge pages, which takes no time to make. If too little is in one piece, the
    kernel is asked again.
    """
    size = min(read_page_sizes().pools)
    pools = f"/sys/devices/system/node/node{node}/hugepages/hugepages-{size >> 10}kB"
    pool = Path(pools, "nr_hugepages")
    with setting(pool, int(pool.read_text())):
        for _ in range(_TRIES):
            missing = (free_bytes(node) - leave * MIB) // size
            if missing <= 0:
                break
            pool.write_text(str(int(pool.read_text()) + missing))
            Path("/proc/sys/vm/compact_memory").write_text("1")
        yield


@contextmanager
def nothing_written_back() -> Iterator[None]:
    """Let dirty pages lie: the kernel neither writes them for their number nor for their age."""
    wanted = {
        "dirty_background_ratio": "99",
        "dirty_ratio": "100",
        "dirty_writeback_centisecs": "0",
        "dirty_expire_centisecs": "360000",
    }
    with ExitStack() as stack:
        for name, value in wanted.items():
            stack.enter_context(setting(f"/proc/sys/vm/{name}", value))
        yield


def count_killed() -> int:
    """Return how many processes the kernel has killed for want of memory since it booted."""
    words = Path("/proc/vmstat").read_text().split()
    return int(words[words.index("oom_kill") + 1])
