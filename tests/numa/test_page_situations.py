"""What the kernel returns in each situation of a page, and what the report says.

docs/reference/situations.md has a row for each of these tests.
"""

from __future__ import annotations

import errno
import json
import mmap
import os
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from schedhook.cli.main import main
from schedhook.testing.native import HUGE
from schedhook.values.errors import UsageError
from tests.balancing import setting
from tests.numa.disks import Slow, swapping_to
from tests.numa.jobs import (
    MIB,
    disk,
    drop_caches,
    free_bytes,
    is_at_least,
    mounted_disk,
    numa_maps_of,
    until,
)
from tests.numa.puppet import PAGE, UNWRITTEN, Advice, Call, Memory, Puppet
from tests.users import NOBODY

pytestmark = [pytest.mark.nodes(4), pytest.mark.balancing("off")]

PAGES = 64
IN_HUGE = HUGE // PAGE
"""Pages in a huge one."""


@pytest.fixture
def puppet() -> Iterator[Puppet]:
    with Puppet() as puppet:
        yield puppet


@pytest.fixture
def relocate(run: Any, puppet: Puppet) -> Any:
    """Relocate the puppet 0 → 2; return the result in pages."""

    def relocate(*arguments: object) -> dict[str, Any]:
        status, report = run("relocate", "--pid", puppet.pid, "--from", 0, "--to", 2, *arguments)
        return {
            "exit": status,
            "moved": report["bytes_moved"] // PAGE,
            "left": {why: size // PAGE for why, size in report["left_by_reason"].items()},
            "attempts": report["attempts"],
            "notes": report["notes"],
        }

    return relocate


def is_complete(report: dict[str, Any], pages: int) -> bool:
    return (report["exit"], report["moved"], report["left"]) == (0, pages, {})


# -- shared with others, or not the process's own ------------------------------------------------


def test_pages_that_ksm_has_merged(puppet: Puppet, relocate: Any) -> None:
    """64 pages of four contents become four; each counts once, however often it is mapped."""
    ksm = Path("/sys/kernel/mm/ksm")
    memory = puppet.map(PAGES * PAGE)
    puppet.fill(memory, 0, period=4)
    puppet.advise(memory, Advice.MERGEABLE)
    with setting(f"{ksm}/sleep_millisecs", 1), setting(f"{ksm}/pages_to_scan", 1000):
        (ksm / "run").write_text("1")
        try:
            until(lambda: int((ksm / "pages_sharing").read_text()) >= PAGES - 4)
            alone = relocate("--shared", "none", "--kinds", "anon")
            assert (alone["exit"], alone["moved"], alone["left"]) == (3, 0, {"shared": 4})
            assert is_complete(relocate(), 4)
            assert puppet.residency(memory) == {2: PAGES * PAGE}
            assert int((ksm / "pages_sharing").read_text()) >= PAGES - 4
            assert puppet.is_intact(memory, period=4)
        finally:
            (ksm / "run").write_text("2")  # take them apart again
            (ksm / "run").write_text("0")


@pytest.mark.dirty
def test_the_zero_page(puppet: Puppet, relocate: Any) -> None:
    small, huge = puppet.map(PAGES * PAGE), puppet.map(2 * HUGE, huge=True)
    puppet.fill(small.part(0, 16), 0)
    assert puppet.read(small.part(16, PAGES)) == puppet.read(huge) == 0
    assert set(puppet.status(small.part(16, PAGES).pages)) == {-errno.EFAULT}
    assert set(puppet.status(huge.pages[:4], 2)) == {-errno.EFAULT}
    assert is_complete(relocate(), 16)
    assert puppet.residency(small) == {2: 16 * PAGE}
    assert puppet.residency(huge) == {}
    assert puppet.read(small.part(16, PAGES)) == puppet.read(huge) == 0
    again = relocate()
    assert (again["exit"], again["moved"], again["left"]) == (0, 0, {})


def test_pages_shared_after_fork_without_the_right_to_move_them() -> None:
    """A user without CAP_SYS_NICE relocates a process of their own that has forked."""
    with Puppet(user=NOBODY) as puppet:
        memory = puppet.anonymous(PAGES)
        puppet.fork()
        puppet.fill(memory.part(0, 16), 0)  # no longer shared
        status, report = as_nobody("relocate", "--pid", puppet.pid, "--from", 0, "--to", 2)
        assert (status, report["outcome"]) == (3, "partial"), report
        assert report["left_by_reason"] == {"shared": (PAGES - 16) * PAGE}
        assert puppet.residency(memory) == {2: 16 * PAGE, 0: (PAGES - 16) * PAGE}
        assert puppet.is_intact(memory)


def as_nobody(*words: object) -> tuple[int, dict[str, Any]]:
    """Run the command in a child as user nobody, after a run here has imported all modules."""
    main([*map(str, words), "--dry-run", "--json"], standalone_mode=False)
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        status = 1
        try:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            sys.stdout = os.fdopen(writing, "w")
            status = main([*map(str, words), "--json"], standalone_mode=False)
            sys.stdout.flush()
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        printed = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return status, json.loads(printed)


def test_memory_of_drivers(puppet: Puppet, relocate: Any) -> None:
    """Device memory, the vDSO and its data are not the process's, whatever numa_maps counts."""
    data = mapping_of(puppet, "[vvar]").part(0, 1)
    puppet.read(data)
    assert bool(puppet.residency(data)) is is_at_least(7, 2)
    devices = puppet.open(Path("/dev/mem"), os.O_RDONLY)
    start = puppet.call(
        Call.MMAP, 0x2000_0000_0000, 16 * PAGE, mmap.PROT_READ, mmap.MAP_SHARED, devices, 0xF0000
    )
    rom = Memory(start, 16 * PAGE)
    puppet.read(rom)
    assert set(puppet.status(rom.pages, 2)) == {-errno.EFAULT}
    zeros = puppet.open(Path("/dev/zero"), os.O_RDWR)
    private = puppet.map(PAGES * PAGE, flags=mmap.MAP_PRIVATE, file=zeros)
    puppet.fill(private, 0)
    assert is_complete(relocate(), PAGES)
    assert puppet.residency(private) == {2: PAGES * PAGE}
    assert puppet.residency(rom) == {}
    assert puppet.is_intact(private)


def mapping_of(puppet: Puppet, label: str) -> Memory:
    lines = Path(f"/proc/{puppet.pid}/maps").read_text().splitlines()
    (line,) = (line for line in lines if line.endswith(f" {label}"))
    start, _, end = line.split()[0].partition("-")
    return Memory(int(start, 16), int(end, 16) - int(start, 16))


def open_event(puppet: Puppet, kind: int, *words: int, more: bytes = b"") -> int:
    """Open an event of perf on the process itself; return the file.

    `words` are what `struct perf_event_attr` has behind `size`. `more` is stored behind it.
    """
    size = 112
    attributes = struct.pack(f"<II{len(words)}Q", kind, size, *words).ljust(size, b"\0")
    unsigned = (1 << 64) - 1
    return puppet.call(
        Call.PERF_EVENT_OPEN, puppet.pass_bytes(attributes + more), 0, unsigned, unsigned, 0
    )


def test_the_page_of_a_process_with_uprobes(puppet: Puppet, relocate: Any) -> None:
    """The kernel maps a page of its own in which the probed instructions run."""
    names = "/sys/bus/event_source/devices/uprobe"
    on_return = 1 << int(Path(names, "format/retprobe").read_text().partition(":")[2])
    path, offset = place_of(puppet, puppet.say("called", 0))
    puppet.bind(0)
    no_period, at_path = (0, 0, 0, 0, 0), puppet.scratch + 112
    open_event(
        puppet, int(Path(names, "type").read_text()), on_return, *no_period, at_path, offset,
        more=path + b"\0",
    )  # fmt: skip
    memory = puppet.anonymous(PAGES)
    page = mapping_of(puppet, "[uprobes]")
    assert puppet.residency(page) == {0: PAGE}
    report = relocate()
    assert (report["exit"], report["left"]) == (0, {})
    assert puppet.residency(page) == {0: PAGE}
    assert puppet.residency(memory) == {2: PAGES * PAGE}
    assert puppet.is_intact(memory)


def place_of(puppet: Puppet, address: int) -> tuple[bytes, int]:
    """Return the file that is mapped at an address, and where the address lies in it."""
    for line in Path(f"/proc/{puppet.pid}/maps").read_bytes().splitlines():
        words = line.split(None, 5)
        start, end = (int(bound, 16) for bound in words[0].split(b"-"))
        if start <= address < end:
            return words[5], address - start + int(words[2], 16)
    raise AssertionError(f"nothing is mapped at {address:x}")


def test_memory_of_the_kernel_that_a_process_maps(puppet: Puppet, relocate: Any) -> None:
    """A packet buffer's pages are on no LRU list, so they cannot be isolated."""
    puppet.bind(0)
    packets, raw, level, ring = 17, 3, 263, 5  # PF_PACKET, SOCK_RAW, SOL_PACKET, PACKET_RX_RING
    file = puppet.call(Call.SOCKET, packets, raw, 0)
    shape = puppet.pass_bytes(struct.pack("<IIII", PAGE, 8, PAGE, 8))
    puppet.call(Call.SETSOCKOPT, file, level, ring, shape, 16)
    buffer = puppet.map(8 * PAGE, flags=mmap.MAP_SHARED, file=file)
    puppet.read(buffer)
    assert puppet.residency(buffer) == {0: 8 * PAGE}
    assert set(puppet.status(buffer.pages, 2)) == {-errno.EBUSY}
    puppet.anonymous(PAGES)
    report = relocate()
    assert (report["exit"], report["moved"], report["left"]) == (3, PAGES, {"EBUSY": 8})
    assert report["attempts"] > 1


def test_buffers_of_perf(puppet: Puppet, relocate: Any) -> None:
    """They are the same, until a kernel maps them as it maps device memory."""
    os.sched_setaffinity(puppet.pid, {0})
    event = open_event(puppet, 1, 1, 0, 0, 0, 1)
    buffer = puppet.map(9 * PAGE, flags=mmap.MAP_SHARED, file=event)
    puppet.read(buffer)
    is_counted = puppet.residency(buffer) == {0: 9 * PAGE}
    assert is_counted or (is_at_least(6, 14) and puppet.residency(buffer) == {})
    assert set(puppet.status(buffer.pages, 2)) == {-errno.EBUSY if is_counted else -errno.EFAULT}
    puppet.anonymous(PAGES)
    report = relocate()
    left = {"EBUSY": 9} if is_counted else {}
    assert (report["exit"], report["moved"], report["left"]) == (3 if left else 0, PAGES, left)


# -- in swap, or about to be dropped --------------------------------------------------------------


@pytest.fixture
def swap() -> Iterator[None]:
    """Swap to a disk in memory that the kernel takes for a real one.

    Of one that it knows to be memory, newer kernels keep no copy of what they have read back.
    """
    with disk(64) as memory:
        above = Slow(memory, 64)
        try:
            with swapping_to(above.device):
                yield
        finally:
            above.remove()


def swap_out(puppet: Puppet, memory: Memory, rest: int) -> None:
    """Have the kernel swap it out, except `rest` pages of its mapping."""
    puppet.advise(memory, Advice.PAGEOUT)
    until(lambda: sum(puppet.residency(memory).values()) == rest * PAGE)


def swap_cached() -> int:
    text = Path("/proc/meminfo").read_text()
    return int(text.partition("SwapCached:")[2].split()[0]) << 10


@pytest.mark.dirty
@pytest.mark.usefixtures("swap")
def test_pages_in_swap(puppet: Puppet, relocate: Any) -> None:
    private = puppet.anonymous(PAGES)
    shared = puppet.map(PAGES * PAGE, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS)
    puppet.fill(shared, 0)
    for memory in (private, shared):
        swap_out(puppet, memory.part(0, 48), PAGES - 48)
        assert set(puppet.status(memory.part(0, 48).pages, 2)) == {-errno.ENOENT}
    # Linux 7.3 keeps them in the swap cache. Those of the shared memory can be reached there.
    reached = min(48, swap_cached() // PAGE)
    report = relocate()
    present = 2 * (PAGES - 48)
    assert present <= report["moved"] <= present + reached
    assert is_complete(report, report["moved"])
    assert f"{48 * PAGE / MIB:.1f} MiB are in swap" in report["notes"][0]
    assert puppet.residency(private) == puppet.residency(shared) == {2: (PAGES - 48) * PAGE}
    assert puppet.is_intact(private)
    assert puppet.is_intact(shared)


@pytest.mark.usefixtures("swap")
def test_pages_in_the_swap_cache(puppet: Puppet, relocate: Any) -> None:
    """They were read back from swap and not modified since, so the copy in swap is still valid."""
    memory = puppet.anonymous(PAGES)
    swap_out(puppet, memory, 0)
    puppet.bind(0)
    puppet.read(memory)
    assert puppet.residency(memory) == {0: PAGES * PAGE}
    assert "dirty" not in line_of(puppet, memory)
    assert is_complete(relocate(), PAGES)
    assert puppet.residency(memory) == {2: PAGES * PAGE}
    assert puppet.is_intact(memory)


def line_of(puppet: Puppet, memory: Memory) -> str:
    """Return the mapping's line of numa_maps."""
    lines = Path(f"/proc/{puppet.pid}/numa_maps").read_text().splitlines()
    return next(line for line in lines if line.startswith(f"{memory.start:x} "))


def test_pages_that_the_process_has_released(puppet: Puppet, relocate: Any) -> None:
    """MADV_FREE: the kernel may drop them, but has not yet."""
    memory = puppet.anonymous(PAGES)
    puppet.advise(memory.part(0, 32), Advice.FREE)
    assert "dirty=32" in line_of(puppet, memory)
    assert is_complete(relocate(), PAGES)
    assert puppet.residency(memory) == {2: PAGES * PAGE}
    assert puppet.is_intact(memory.part(0, 32))


# -- protected, registered, hidden ----------------------------------------------------------------


@pytest.mark.dirty
def test_areas_without_access(puppet: Puppet, relocate: Any) -> None:
    small, huge = puppet.anonymous(PAGES), puppet.map(2 * HUGE, huge=True)
    puppet.fill(huge, 0)
    puppet.protect(small.part(0, 32), 0)
    puppet.protect(huge.part(0, IN_HUGE), 0)
    hidden = -errno.ENOENT in puppet.status(small.pages)  # Linux 6.1 to 6.4
    bound = relocate("--gentle")
    half = 32 + IN_HUGE
    assert bound["moved"] == (half if hidden else 2 * half)
    assert (bound["exit"], bound["left"]) == ((3, {"hidden": half}) if hidden else (0, {}))
    if hidden:
        report = relocate()
        assert is_complete(report, half)
        assert "migrate_pages(2) was called" in report["notes"][0]
    for memory in (small, huge):
        assert puppet.residency(memory) == {2: memory.size}
        puppet.protect(memory, mmap.PROT_READ)
        assert puppet.is_intact(memory)


def test_areas_without_access_where_nodes_change_places(run: Any, puppet: Puppet) -> None:
    """No call of migrate_pages(2) can swap nodes, so they are only counted."""
    memory, other = puppet.anonymous(PAGES), puppet.anonymous(16, 2)
    puppet.protect(memory.part(0, 32), 0)
    hidden = -errno.ENOENT in puppet.status(memory.pages)
    status, report = run("relocate", "--pid", puppet.pid, "--map", "0:2,2:0")
    assert status == (3 if hidden else 0)
    assert report["left_by_reason"] == ({"hidden": 32 * PAGE} if hidden else {})
    assert puppet.residency(other) == {0: 16 * PAGE}
    assert puppet.residency(memory.part(32, PAGES)) == {2: 32 * PAGE}


@pytest.mark.dirty
@pytest.mark.balancing("on")
def test_pages_that_numa_balancing_has_marked(run: Any) -> None:
    scan = "/sys/kernel/debug/sched/numa_balancing/scan_"
    with (
        setting(f"{scan}delay_ms", 1),
        setting(f"{scan}period_min_ms", 10),
        Puppet() as puppet,
    ):
        memory, busy_with = puppet.anonymous(PAGES), puppet.anonymous(512, 3)
        os.sched_setaffinity(puppet.pid, {3})  # memory on the processor's node is not marked
        puppet.bind(None)  # nor is memory that is bound
        scans = int(vmstat("numa_pte_updates"))

        def is_marked() -> bool:
            puppet.is_intact(busy_with)
            return int(vmstat("numa_pte_updates")) >= scans + PAGES

        until(is_marked)
        there = numa_maps_of(puppet.pid)[0]  # Linux 6.12 has brought its program's file there
        assert there >= PAGES * PAGE
        status, report = run("relocate", "--pid", puppet.pid, "--from", 0, "--to", 2)
        assert (status, report["bytes_moved"]) == (0, there), report
        assert puppet.residency(memory) == {2: PAGES * PAGE}
        assert puppet.is_intact(memory)


def vmstat(name: str) -> str:
    words = Path("/proc/vmstat").read_text().split()
    return words[words.index(name) + 1]


def test_secret_memory(puppet: Puppet, relocate: Any) -> None:
    secret = puppet.call(Call.MEMFD_SECRET, 0)
    puppet.call(Call.FTRUNCATE, secret, PAGES * PAGE)
    memory = puppet.map(PAGES * PAGE, flags=mmap.MAP_SHARED, file=secret)
    puppet.fill(memory, 0)
    puppet.anonymous(PAGES)
    status = UNWRITTEN if is_at_least(6, 12) else -errno.ENOENT
    assert set(puppet.status(memory.pages, 2)) == {status}
    report = relocate()
    reason = "EBUSY" if is_at_least(6, 12) else "hidden"
    assert (report["exit"], report["moved"], report["left"]) == (3, PAGES, {reason: PAGES})
    assert puppet.residency(memory) == {0: PAGES * PAGE}
    assert puppet.is_intact(memory)


def test_areas_registered_with_userfaultfd(puppet: Puppet, relocate: Any) -> None:
    """No process handles its faults: access to a missing or write-protected page would hang."""
    file = puppet.call(Call.USERFAULTFD, os.O_CLOEXEC | os.O_NONBLOCK)
    puppet.call(Call.IOCTL, file, 0xC018AA3F, puppet.pass_bytes(struct.pack("<QQQ", 0xAA, 0, 0)))
    memory = puppet.map(PAGES * PAGE)
    puppet.fill(memory.part(0, 32), 0)
    both = puppet.pass_bytes(struct.pack("<QQQQ", memory.start, memory.size, 3, 0))
    puppet.call(Call.IOCTL, file, 0xC020AA00, both)
    protect = puppet.pass_bytes(struct.pack("<QQQ", memory.start, 16 * PAGE, 1))
    puppet.call(Call.IOCTL, file, 0xC018AA06, protect)
    assert is_complete(relocate(), 32)
    assert puppet.residency(memory) == {2: 32 * PAGE}
    assert puppet.is_intact(memory.part(0, 32))
    puppet.later(Call.MADVISE, memory.start, PAGE, Advice.DONTNEED)  # without a fault it ends
    until(lambda: puppet.threads() == 1)


# -- huge pages -----------------------------------------------------------------------------------


def huge_bytes(puppet: Puppet) -> int:
    text = Path(f"/proc/{puppet.pid}/smaps_rollup").read_text()
    return int(text.partition("AnonHugePages:")[2].split()[0]) << 10


def test_huge_pages_of_which_a_part_is_mapped(puppet: Puppet, relocate: Any) -> None:
    """One without its first half, one with two protections, one with a hole, and a whole one."""
    memory = puppet.map(4 * HUGE, huge=True)
    puppet.fill(memory, 0)
    assert huge_bytes(puppet) == 4 * HUGE
    puppet.call(Call.MUNMAP, memory.start, HUGE // 2)
    second, third = IN_HUGE, 2 * IN_HUGE
    puppet.protect(memory.part(second + IN_HUGE // 2, third), mmap.PROT_READ)
    puppet.advise(memory.part(third, third + 1), Advice.DONTNEED)
    assert huge_bytes(puppet) == HUGE
    rest = 4 * IN_HUGE - IN_HUGE // 2 - 1
    assert is_complete(relocate(), rest)
    assert puppet.residency(memory) == {2: rest * PAGE}
    assert huge_bytes(puppet) == HUGE


def test_huge_pages_for_which_the_new_node_has_only_small_ones(
    puppet: Puppet, relocate: Any
) -> None:
    """Its free memory is fragmented, and compaction may not move what lies in between."""
    if is_at_least(6, 12):
        pytest.skip("from 6.12 on the pool takes that memory as well")
    drop_caches()
    memory = puppet.map(4 * HUGE, huge=True)
    puppet.fill(memory, 0)
    pool = f"/sys/devices/system/node/node2/hugepages/hugepages-{HUGE >> 10}kB/nr_hugepages"
    with Puppet() as other, setting("/proc/sys/vm/compact_unevictable_allowed", 0):
        scattered = other.anonymous(128 * MIB // PAGE, 2)
        other.thin(scattered)
        only_what_is_there = 1
        other.call(Call.MLOCK2, scattered.start, scattered.size, only_what_is_there)
        with setting(pool, free_bytes(2) // HUGE):  # takes every free huge page
            assert huge_bytes(puppet) == memory.size
            assert is_complete(relocate("--reserve", 0), memory.size // PAGE)
    assert puppet.residency(memory) == {2: memory.size}
    assert huge_bytes(puppet) < memory.size, "none was split"
    assert puppet.is_intact(memory)


# -- files ----------------------------------------------------------------------------------------


@pytest.fixture
def slow() -> Iterator[Slow]:
    with disk(16) as fast:
        slow = Slow(fast, 16)
        yield slow
        slow.remove()


def test_direct_io_in_flight(slow: Slow, puppet: Puppet, relocate: Any) -> None:
    """The disk may access the pages until it is done."""
    file = puppet.open(slow.device, os.O_WRONLY | os.O_DIRECT)
    memory = puppet.anonymous(PAGES)
    with slow.stopped():
        puppet.later(Call.PWRITE, file, memory.start, 16 * PAGE, 0)
        until(puppet.waits)
        report = relocate()
    assert (report["exit"], report["moved"], report["left"]) == (3, PAGES - 16, {"EBUSY": 16})
    assert report["attempts"] > 1
    until(lambda: puppet.threads() == 1)
    assert is_complete(relocate(), 16)
    assert puppet.residency(memory) == {2: PAGES * PAGE}
    assert puppet.is_intact(memory)
    puppet.call(Call.CLOSE, file)


def test_file_pages_that_are_being_written_back(slow: Slow, puppet: Puppet, relocate: Any) -> None:
    """The kernel waits for the disk."""
    file = puppet.open(slow.device, os.O_RDWR)
    memory = puppet.map(32 * PAGE, flags=mmap.MAP_SHARED, file=file)
    puppet.fill(memory, 0)
    with slow.stopped():
        puppet.later(Call.FSYNC, file)
        until(lambda: "writeback=32" in line_of(puppet, memory))
        going = threading.Timer(0.5, slow.go_on)
        going.start()
        report = relocate()
        going.join()
    assert is_complete(report, 32)
    assert puppet.residency(memory) == {2: 32 * PAGE}
    assert puppet.is_intact(memory)
    until(lambda: puppet.threads() == 1)


def map_file(puppet: Puppet, path: Path) -> Memory:
    file = puppet.open(path, os.O_RDWR | os.O_CREAT)
    puppet.call(Call.FTRUNCATE, file, 32 * PAGE)
    memory = puppet.map(32 * PAGE, flags=mmap.MAP_SHARED, file=file)
    puppet.call(Call.CLOSE, file)
    puppet.fill(memory, 0)
    return memory


def test_file_systems_that_cannot_move_pages(puppet: Puppet, relocate: Any, tmp_path: Path) -> None:
    """Before 6.12 the kernel writes a dirty page of minix back first; it never moves ramfs's."""
    with mounted_disk(tmp_path, 16, "minix") as directory:
        memory = map_file(puppet, directory / "file")
        assert "dirty=32" in line_of(puppet, memory)
        assert is_complete(relocate(), 32)
        assert ("dirty=32" in line_of(puppet, memory)) is is_at_least(6, 12)
        assert puppet.is_intact(memory)
        puppet.call(Call.MUNMAP, memory.start, memory.size)
    subprocess.run(["mount", "-t", "ramfs", "none", tmp_path], check=True, timeout=60)
    try:
        memory = map_file(puppet, tmp_path / "file")
        report = relocate()
        assert (report["exit"], report["moved"], report["left"]) == (3, 0, {"EBUSY": 32})
        assert puppet.is_intact(memory)
    finally:
        subprocess.run(["umount", "--lazy", tmp_path], check=True, timeout=60)


def test_page_cache_that_no_process_maps(puppet: Puppet, relocate: Any, tmp_path: Path) -> None:
    with mounted_disk(tmp_path, 16) as directory:
        file = puppet.open(directory / "file", os.O_RDWR | os.O_CREAT)
        source = puppet.anonymous(32, 3)
        puppet.bind(0)
        puppet.call(Call.PWRITE, file, source.start, source.size, 0)
        report = relocate()
        assert (report["exit"], report["moved"], report["left"]) == (0, 0, {})
        memory = puppet.map(32 * PAGE, flags=mmap.MAP_SHARED, file=file)
        puppet.read(memory)
        assert puppet.residency(memory) == {0: 32 * PAGE}
        assert is_complete(relocate(), 32)
        assert puppet.is_intact(memory)
        puppet.call(Call.MUNMAP, memory.start, memory.size)
        puppet.call(Call.CLOSE, file)


def test_segments_and_files_in_memory(puppet: Puppet, relocate: Any, tmp_path: Path) -> None:
    """System V shared memory, and tmpfs with huge pages."""
    create = 0o1600
    segment = puppet.call(Call.SHMGET, 0, PAGES * PAGE, create)
    small = Memory(puppet.call(Call.SHMAT, segment, 0x2000_0000_0000, 0), PAGES * PAGE)
    puppet.call(Call.SHMCTL, segment, 0, 0)  # gone with its last user
    puppet.fill(small, 0)
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "huge=always", "none", tmp_path], check=True, timeout=60
    )
    try:
        file = puppet.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
        puppet.call(Call.FTRUNCATE, file, 2 * HUGE)
        huge = puppet.map(2 * HUGE, flags=mmap.MAP_SHARED, file=file)
        puppet.fill(huge, 0)
        assert is_complete(relocate(), PAGES + 2 * IN_HUGE)
        for memory in (small, huge):
            assert puppet.residency(memory) == {2: memory.size}
            assert puppet.is_intact(memory)
        rollup = Path(f"/proc/{puppet.pid}/smaps_rollup").read_text()
        assert int(rollup.partition("ShmemPmdMapped:")[2].split()[0]) << 10 == huge.size
    finally:
        subprocess.run(["umount", "--lazy", tmp_path], check=True, timeout=60)


# -- destinations ---------------------------------------------------------------------------------


def goes_offline(state: Path) -> bool:
    """Return whether it goes offline now; memory allocated there may be in use for a moment."""
    drop_caches()
    with suppress(OSError):
        state.write_text("offline")
    return state.read_text().strip() == "offline"


@contextmanager
def movable_zone(node: int) -> Iterator[None]:
    """Turn a block of the node's memory into ZONE_MOVABLE, as hot-plugged memory often is."""
    blocks = Path(f"/sys/devices/system/node/node{node}").glob("memory*/state")
    drop_caches()
    for state in sorted(blocks, reverse=True):
        try:
            state.write_text("offline")
        except OSError:
            continue  # it holds memory of the kernel
        state.write_text("online_movable")
        try:
            yield
        finally:
            until(partial(goes_offline, state))
            state.write_text("online_kernel")
        return
    if os.uname().machine == "aarch64":
        pytest.skip("arm64 takes no memory offline that was there at the boot")
    raise AssertionError(f"no block of node {node} can be taken offline")


def test_memory_that_is_movable_only(puppet: Puppet, relocate: Any, run: Any) -> None:
    memory = puppet.anonymous(PAGES)
    with movable_zone(2):
        assert is_complete(relocate(), PAGES)
        assert puppet.residency(memory) == {2: PAGES * PAGE}
        status, report = run("relocate", "--pid", puppet.pid, "--from", 2, "--to", 0)
        assert (status, report["bytes_moved"]) == (0, PAGES * PAGE)
    assert puppet.residency(memory) == {0: PAGES * PAGE}
    assert puppet.is_intact(memory)


def test_a_node_that_is_not_there(puppet: Puppet, run: Any) -> None:
    memory = puppet.anonymous(PAGES)
    assert puppet.status(memory.pages[:1], 9) == [-9999]  # ENODEV for the whole call
    with pytest.raises(UsageError, match="node 9 is not online"):  # exit status 2
        run("relocate", "--pid", puppet.pid, "--from", 0, "--to", 9)
    assert puppet.residency(memory) == {0: PAGES * PAGE}
