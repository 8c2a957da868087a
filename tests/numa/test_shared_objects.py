"""Pages of shared memory that no process maps: found, moved, and nothing else touched.

Where they lie is read from the cgroup's memory.numa_stat, which counts each page once, mapped or
not.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from schedhook.backends.native import _core
from schedhook.backends.native.backend import NativeBackend
from schedhook.roles.backend import Limits, SharedObject, Sweep
from schedhook.testing.native import HUGE
from schedhook.testing.processes import huge_page_pool
from tests.numa.callers import be_nobody, call, deny
from tests.numa.jobs import cgroup, mounted_disk, numa_stat, until
from tests.numa.puppet import PAGE, Advice, Call, Memory, Puppet
from tests.users import NOBODY

pytestmark = pytest.mark.nodes(4)

PAGES = 64
MANY = 2048
"""Pages of an object that is relocated."""
STRATEGIES = ["move-pages", "migrate-process"]
SHARED = Path("/dev/shm/schedhook-test-object")
_MFD_HUGETLB, _SHM_HUGETLB, _IPC_CREAT, _IPC_RMID = 4, 0o4000, 0o1000, 0
_PUNCH_HOLE, _KEEP_SIZE = 2, 1
_F_ADD_SEALS, _F_SEAL_WRITE = 1033, 8
_PR_SET_DUMPABLE = 4
_LIBC = ctypes.CDLL(None, use_errno=True)


# -- objects -------------------------------------------------------------------------------------


def memfd(puppet: Puppet, size: int, flags: int = 0) -> int:
    file = puppet.call(Call.MEMFD_CREATE, puppet.pass_bytes(b"object\0"), flags)
    puppet.call(Call.FTRUNCATE, file, size)
    return file


def map_memfd(puppet: Puppet, size: int) -> Memory:
    return puppet.map(size, flags=mmap.MAP_SHARED, file=memfd(puppet, size))


def map_huge_memfd(puppet: Puppet, size: int) -> Memory:
    return puppet.map(size, flags=mmap.MAP_SHARED, file=memfd(puppet, size, _MFD_HUGETLB))


def map_tmpfs(puppet: Puppet, size: int) -> Memory:
    file = puppet.open(SHARED, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    puppet.call(Call.FTRUNCATE, file, size)
    return puppet.map(size, flags=mmap.MAP_SHARED, file=file)


def map_anonymous(puppet: Puppet, size: int) -> Memory:
    return puppet.map(size, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS)


def attach_segment(puppet: Puppet, size: int, flags: int = 0) -> Memory:
    segment = puppet.call(Call.SHMGET, 0, size, _IPC_CREAT | flags | 0o600)
    start = puppet.call(Call.SHMAT, segment, 0, 0)
    puppet.call(Call.SHMCTL, segment, _IPC_RMID, 0)
    return Memory(start, size)


def attach_huge_segment(puppet: Puppet, size: int) -> Memory:
    return attach_segment(puppet, size, _SHM_HUGETLB)


SMALL: dict[str, Callable[[Puppet, int], Memory]] = {
    "/memfd:object": map_memfd,
    "/dev/zero": map_anonymous,
    "/SYSV": attach_segment,
    str(SHARED): map_tmpfs,
}
IN_POOLS: dict[str, Callable[[Puppet, int], Memory]] = {
    "/memfd:object": map_huge_memfd,
    "/SYSV": attach_huge_segment,
}


@pytest.fixture
def puppet() -> Iterator[Puppet]:
    with Puppet() as puppet:
        yield puppet
    SHARED.unlink(missing_ok=True)


@contextmanager
def object_of(puppet: Puppet, name: str) -> Iterator[SharedObject]:
    """Find the puppet's only object with a name that begins so."""
    backend = NativeBackend()
    with backend.attach(puppet.pid) as target:
        (found,) = [each for each in backend.shared_objects([target]) if each.name.startswith(name)]
        yield found


def unmapped(shared: SharedObject) -> dict[int, int]:
    """Return bytes by node of the pages that no process maps."""
    return {node: size for area in shared.areas() for node, size in area.residency.items()}


def sweep(shared: SharedObject, destinations: dict[int, int]) -> Sweep:
    (area,) = shared.areas()
    return shared.sweep(area, area.start, area.end, destinations, shared=True, limits=Limits())


def holes(file: int) -> tuple[int, list[tuple[int, int]]]:
    """Return the allocated blocks, and each range of data."""
    ranges, end = [], 0
    while True:
        try:
            start = os.lseek(file, end, os.SEEK_DATA)
        except OSError:
            return os.fstat(file).st_blocks, ranges
        end = os.lseek(file, start, os.SEEK_HOLE)
        ranges.append((start, end))


def punch(file: int, start: int, size: int) -> None:
    mode = _PUNCH_HOLE | _KEEP_SIZE
    assert _LIBC.fallocate(file, mode, ctypes.c_long(start), ctypes.c_long(size)) == 0


# -- found and moved -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", SMALL)
def test_pages_that_nobody_maps_move(puppet: Puppet, name: str) -> None:
    memory = SMALL[name](puppet, PAGES * PAGE)
    puppet.fill(memory, 0)
    with object_of(puppet, name) as shared:
        assert unmapped(shared) == {}
        assert shared.allocated() == PAGES * PAGE
        puppet.advise(memory.part(16, PAGES), Advice.DONTNEED)
        assert unmapped(shared) == {0: (PAGES - 16) * PAGE}
        assert sweep(shared, {1: 3}).moved == {}
        done = sweep(shared, {0: 2})
        assert (done.moved, done.failures) == ({(0, 2): (PAGES - 16) * PAGE}, ())
        assert unmapped(shared) == {2: (PAGES - 16) * PAGE}
        assert puppet.residency(memory) == {0: 16 * PAGE}
        assert puppet.is_intact(memory)
        assert puppet.residency(memory) == {0: 16 * PAGE, 2: (PAGES - 16) * PAGE}
        assert unmapped(shared) == {}


@pytest.mark.parametrize("name", IN_POOLS)
def test_huge_pages_of_a_pool_that_nobody_maps_move(puppet: Puppet, name: str) -> None:
    with ExitStack() as stack:
        for node in (0, 2):
            stack.enter_context(huge_page_pool(node, HUGE, 6))
        puppet.bind(0)  # where the mapping reserves its pages
        memory = IN_POOLS[name](puppet, 6 * HUGE)
        puppet.fill(memory.part(0, 4 * HUGE // PAGE), 0)  # two stay holes
        puppet.advise(memory.part(HUGE // PAGE, 6 * HUGE // PAGE), Advice.DONTNEED)
        with object_of(puppet, name) as shared:
            assert unmapped(shared) == {0: 3 * HUGE}
            done = sweep(shared, {0: 2})
            assert (done.moved, done.failures) == ({(0, 2): 3 * HUGE}, ())
            assert unmapped(shared) == {2: 3 * HUGE}
            assert shared.allocated() == 4 * HUGE
        assert puppet.is_intact(memory.part(0, 4 * HUGE // PAGE))
        assert puppet.residency(memory) == {0: HUGE, 2: 3 * HUGE}
        puppet.call(Call.MUNMAP, memory.start, memory.size)
        puppet.process.kill()
        puppet.process.wait()


def test_an_object_of_which_no_process_has_touched_a_page(puppet: Puppet) -> None:
    """Its creator has exited; it is mapped, and its mapping has no page."""
    with Puppet() as creator:
        creator.fill(map_tmpfs(creator, PAGES * PAGE), 0)
    file = puppet.open(SHARED, os.O_RDWR)
    memory = puppet.map(PAGES * PAGE, flags=mmap.MAP_SHARED, file=file)
    with object_of(puppet, str(SHARED)) as shared:
        assert unmapped(shared) == {0: PAGES * PAGE}
        assert sweep(shared, {0: 2}).moved == {(0, 2): PAGES * PAGE}
        assert puppet.residency(memory) == {}
    assert puppet.is_intact(memory)


def test_huge_pages_of_tmpfs(puppet: Puppet, tmp_path: Path) -> None:
    """A huge page of which the job maps a part moves as one."""
    with mounted(tmp_path, "huge=always") as point:
        file = puppet.open(point / "file", os.O_RDWR | os.O_CREAT)
        puppet.call(Call.FTRUNCATE, file, 4 * HUGE)
        memory = puppet.map(4 * HUGE, flags=mmap.MAP_SHARED, file=file)
        puppet.fill(memory, 0)
        puppet.advise(memory.part(100, 4 * HUGE // PAGE), Advice.DONTNEED)
        with object_of(puppet, str(point)) as shared:
            assert unmapped(shared) == {0: 4 * HUGE - sum(puppet.residency(memory).values())}
            done = sweep(shared, {0: 2})
            assert done.failures == ()
            assert unmapped(shared).keys() == {2}
        assert puppet.is_intact(memory)
        assert puppet.residency(memory) == {2: 4 * HUGE}
        puppet.process.kill()
        puppet.process.wait()


@contextmanager
def mounted(directory: Path, options: str) -> Iterator[Path]:
    point = directory / "tmpfs"
    point.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", point], check=True, timeout=60)
    try:
        yield point
    finally:
        subprocess.run(["umount", "-l", point], check=True, timeout=60)


# -- what is left alone --------------------------------------------------------------------------


def test_holes_stay_holes(puppet: Puppet) -> None:
    memory = map_tmpfs(puppet, 4 * PAGES * PAGE)
    for first in range(0, 4 * PAGES, 2):
        puppet.fill(memory.part(first, first + 1), 0)
    puppet.advise(memory, Advice.DONTNEED)
    file = os.open(SHARED, os.O_RDONLY)
    before = holes(file)
    assert len(before[1]) == 2 * PAGES
    with object_of(puppet, str(SHARED)) as shared:
        assert unmapped(shared) == {0: 2 * PAGES * PAGE}
        assert sweep(shared, {0: 2}).moved == {(0, 2): 2 * PAGES * PAGE}
        assert unmapped(shared) == {2: 2 * PAGES * PAGE}
    assert holes(file) == before
    os.close(file)


def test_a_large_object_with_few_pages(puppet: Puppet) -> None:
    """One of 1 TiB; only the parts that have data are looked at."""
    memory = map_tmpfs(puppet, 1 << 40)
    far = Memory(memory.start + (900 << 30), 4 * PAGE)
    puppet.fill(far, 0)
    puppet.advise(far, Advice.DONTNEED)
    with object_of(puppet, str(SHARED)) as shared:
        assert unmapped(shared) == {0: 4 * PAGE}
        assert sweep(shared, {0: 2}).moved == {(0, 2): 4 * PAGE}
        assert shared.allocated() == 4 * PAGE


def test_holes_that_are_punched_meanwhile_stay_holes(puppet: Puppet) -> None:
    memory = map_tmpfs(puppet, 16 * PAGES * PAGE)
    file = os.open(SHARED, os.O_RDWR)
    with object_of(puppet, str(SHARED)) as shared:
        for turn in range(8):
            for first in range(0, 16 * PAGES, 8):
                os.pwrite(file, b"x" * 8 * PAGE, first * PAGE)
            assert os.fstat(file).st_blocks * 512 == 16 * PAGES * PAGE
            thread = threading.Thread(target=_punch_all, args=(file, 16 * PAGES))
            thread.start()
            while thread.is_alive():
                for area in shared.areas():
                    way = {node: (node + 1) % 4 for node in area.residency} if turn % 2 else {}
                    shared.sweep(area, area.start, area.end, way, shared=True, limits=Limits())
            thread.join()
            assert holes(file) == (0, [])
    assert puppet.residency(memory) == {}
    os.close(file)


def _punch_all(file: int, pages: int) -> None:
    for page in range(pages):
        punch(file, page * PAGE, PAGE)


def test_a_file_that_is_truncated_meanwhile(puppet: Puppet) -> None:
    """The mover lives on: no SIGBUS."""
    map_tmpfs(puppet, 16 * PAGES * PAGE)
    file = os.open(SHARED, os.O_RDWR)
    stop = threading.Event()

    def resize() -> None:
        for turn in count():
            os.pwrite(file, b"x" * 8 * PAGES * PAGE, 0)
            if stop.wait(turn % 8 / 1000):
                return
            os.ftruncate(file, turn % 3 * PAGES * PAGE)
            os.ftruncate(file, 16 * PAGES * PAGE)

    thread = threading.Thread(target=resize)
    thread.start()
    with object_of(puppet, str(SHARED)) as shared:
        for turn in range(40):
            for area in shared.areas():
                way = {node: (node + turn) % 4 for node in area.residency}
                shared.sweep(area, area.start, area.end, way, shared=True, limits=Limits())
    stop.set()
    thread.join()
    os.close(file)


def test_a_memfd_can_be_sealed_meanwhile() -> None:
    """A window counts as no writer, for which the job's fcntl(2) would fail with EBUSY."""
    file = os.memfd_create("sealed", os.MFD_ALLOW_SEALING)
    os.pwrite(file, b"x" * PAGES * PAGE, 0)
    other = os.open(f"/proc/self/fd/{file}", os.O_RDONLY)
    pagemap = os.open("/proc/self/pagemap", os.O_RDONLY)
    address = _core.open_window(other, pagemap, 0, PAGES * PAGE, PAGE, PAGE, False)
    fcntl.fcntl(file, _F_ADD_SEALS, _F_SEAL_WRITE)
    _core.close_window(address, PAGES * PAGE)
    for each in (file, other, pagemap):
        os.close(each)


def test_pages_that_were_allocated_and_never_used(puppet: Puppet) -> None:
    memory = map_tmpfs(puppet, PAGES * PAGE)
    puppet.fill(memory.part(0, 16), 0)
    puppet.bind(0)
    file = puppet.open(SHARED, os.O_RDWR)
    puppet.call(Call.FALLOCATE, file, 0, 8 * PAGE, 24 * PAGE)
    puppet.advise(memory, Advice.DONTNEED)
    with object_of(puppet, str(SHARED)) as shared:
        assert shared.allocated() == 32 * PAGE
        assert unmapped(shared) == {0: 32 * PAGE}
        assert sweep(shared, {0: 2}).moved == {(0, 2): 32 * PAGE}
        assert shared.allocated() == 32 * PAGE
    assert puppet.is_intact(memory.part(0, 16))
    assert puppet.read(memory.part(16, 32)) == 0


def test_files_elsewhere_are_not_opened(puppet: Puppet, tmp_path: Path) -> None:
    backend = NativeBackend()
    with mounted_disk(tmp_path, 16) as point:
        path = point / "memfd:object (deleted)"
        path.write_bytes(b"x" * PAGES * PAGE)
        file = puppet.open(path, os.O_RDWR)
        memory = puppet.map(PAGES * PAGE, flags=mmap.MAP_SHARED, file=file)
        puppet.read(memory)
        with backend.attach(puppet.pid) as target:
            assert backend.shared_objects([target]) == []
        puppet.process.kill()
        puppet.process.wait()


# -- relocations ---------------------------------------------------------------------------------


@pytest.fixture
def group() -> Iterator[Path]:
    with cgroup("objects") as path:
        yield path


def shmem(group: Path, size: int) -> dict[int, int]:
    """Return the cgroup's shared memory by node, once the kernel's counters add up to `size`."""

    def read() -> dict[int, int]:
        return {node: count for node, count in numa_stat(group, "shmem").items() if count}

    until(lambda: sum(read().values()) == size)
    return read()


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("name", SMALL)
def test_an_object_of_which_the_job_maps_a_part(
    run: Any, group: Path, puppet: Puppet, name: str, strategy: str
) -> None:
    (group / "cgroup.procs").write_text(str(puppet.pid))
    memory = SMALL[name](puppet, MANY * PAGE)
    puppet.fill(memory, 0)
    puppet.advise(memory.part(100, MANY), Advice.DONTNEED)
    arguments = ("--pid", puppet.pid, "--from", 0, "--to", 2, "--strategy", strategy)
    _, shown = run("show", "--pid", puppet.pid)
    assert (shown["residency"]["0"], shown["kinds"]["shmem"]["0"]) == (MANY * PAGE, MANY * PAGE)
    status, plan = run("plan", *arguments)
    assert plan["bytes_planned"] == MANY * PAGE
    assert shmem(group, MANY * PAGE) == {0: MANY * PAGE}
    status, report = run("relocate", *arguments)
    assert (status, report["outcome"]) == (0, "complete")
    assert report["bytes_moved"] == MANY * PAGE
    assert report["processes"][0]["residency_before"]["0"] == MANY * PAGE
    assert report["processes"][0]["residency_after"]["2"] == MANY * PAGE
    assert shmem(group, MANY * PAGE) == {2: MANY * PAGE}
    assert puppet.residency(memory) == {2: 100 * PAGE}
    assert puppet.is_intact(memory)
    status, report = run("relocate", *arguments)
    assert (status, report["outcome"]) == (0, "nothing-to-do")


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("name", IN_POOLS)
def test_an_object_in_a_pool_of_huge_pages(
    run: Any, puppet: Puppet, name: str, strategy: str
) -> None:
    with ExitStack() as stack:
        for node in (0, 2):
            stack.enter_context(huge_page_pool(node, HUGE, 6))
        puppet.bind(0)
        memory = IN_POOLS[name](puppet, 6 * HUGE)
        puppet.fill(memory, 0)
        puppet.advise(memory.part(HUGE // PAGE, 6 * HUGE // PAGE), Advice.DONTNEED)
        status, report = run(
            "relocate", "--pid", puppet.pid, "--from", 0, "--to", 2, "--strategy", strategy
        )
        assert (status, report["bytes_moved"]) == (0, 6 * HUGE)
        assert puppet.is_intact(memory)
        assert puppet.residency(memory) == {2: 6 * HUGE}
        puppet.process.kill()
        puppet.process.wait()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_several_processes_that_map_parts_of_a_segment(
    run: Any, group: Path, strategy: str
) -> None:
    """As a database's: its creator has exited, and most of it is in no page table."""
    with Puppet() as creator, Puppet() as first, Puppet() as second:
        for each in (creator, first, second):
            (group / "cgroup.procs").write_text(str(each.pid))
        segment = creator.call(Call.SHMGET, 0, MANY * PAGE, _IPC_CREAT | 0o600)
        try:
            views = [
                Memory(each.call(Call.SHMAT, segment, 0, 0), MANY * PAGE)
                for each in (creator, first, second)
            ]
            creator.fill(views[0], 0)
            creator.process.kill()
            creator.process.wait()
            assert first.read(views[1].part(0, 200)) >= 0
            assert second.read(views[2].part(100, 300)) >= 0
            status, report = run(
                "relocate", "--cgroup", "/objects", "--from", 0, "--to", 2, "--strategy", strategy
            )
            assert (status, report["outcome"]) == (0, "complete")
            assert report["bytes_moved"] == MANY * PAGE
            assert shmem(group, MANY * PAGE) == {2: MANY * PAGE}
            assert first.is_intact(views[1])
        finally:
            first.call(Call.SHMCTL, segment, _IPC_RMID, 0)


def test_old_and_new_nodes_overlap(run: Any, group: Path, puppet: Puppet) -> None:
    (group / "cgroup.procs").write_text(str(puppet.pid))
    memory = map_tmpfs(puppet, MANY * PAGE)
    puppet.fill(memory.part(0, 1500), 0)
    puppet.fill(memory.part(1500, MANY), 2)
    puppet.advise(memory.part(100, MANY), Advice.DONTNEED)
    assert shmem(group, MANY * PAGE) == {0: 1500 * PAGE, 2: (MANY - 1500) * PAGE}
    status, report = run("relocate", "--pid", puppet.pid, "--map", "0:2,2:0")
    assert (status, report["bytes_moved"]) == (0, MANY * PAGE)
    assert shmem(group, MANY * PAGE) == {2: 1500 * PAGE, 0: (MANY - 1500) * PAGE}


def test_kinds_and_page_strategies_leave_objects_alone(run: Any, puppet: Puppet) -> None:
    memory = map_memfd(puppet, PAGES * PAGE)
    puppet.fill(memory, 0)
    puppet.advise(memory, Advice.DONTNEED)
    status, report = run("relocate", "--pid", puppet.pid, "--from", 0, "--to", 2, "--kinds", "anon")
    assert (status, report["outcome"]) == (0, "nothing-to-do")
    assert report["bytes_kept"] == {"shmem": PAGES * PAGE}


def start_as_nobody() -> None:
    """Become nobody, with files in /proc that belong to nobody, as in a program they started."""
    be_nobody()
    assert _LIBC.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0) == 0


def test_a_user_moves_what_they_may_open(run: Any, group: Path) -> None:
    """The user has a descriptor of the memfd, and none of the shared anonymous memory."""
    with Puppet(user=NOBODY) as puppet:
        (group / "cgroup.procs").write_text(str(puppet.pid))
        memories = [map_memfd(puppet, MANY * PAGE), map_anonymous(puppet, MANY * PAGE)]
        for memory in memories:
            puppet.fill(memory, 0)
            puppet.advise(memory.part(100, MANY), Advice.DONTNEED)
        assert shmem(group, 2 * MANY * PAGE) == {0: 2 * MANY * PAGE}
        words = ("relocate", "--pid", puppet.pid, "--from", 0, "--to", 2)
        run(*words, "--dry-run")  # imports what the user may not read
        answer = call(*words, "--json", become=start_as_nobody)
        report = answer.report
        assert (answer.status, report["outcome"]) == (3, "partial")
        assert report["bytes_moved"] == (MANY + 100) * PAGE
        assert report["left_by_reason"] == {"unmapped": (MANY - 100) * PAGE}
        assert any("CAP_CHECKPOINT_RESTORE" in note for note in report["notes"])
        assert puppet.residency(memories[0]) == {2: 100 * PAGE}
        assert all(puppet.is_intact(memory) for memory in memories)
        assert puppet.residency(memories[0]) == {2: MANY * PAGE}


def test_a_kernel_or_container_without_userfaultfd(run: Any, group: Path, puppet: Puppet) -> None:
    (group / "cgroup.procs").write_text(str(puppet.pid))
    memory = map_memfd(puppet, MANY * PAGE)
    puppet.fill(memory, 0)
    puppet.advise(memory.part(100, MANY), Advice.DONTNEED)
    assert shmem(group, MANY * PAGE) == {0: MANY * PAGE}
    words = ("relocate", "--pid", puppet.pid, "--from", 0, "--to", 2)
    run(*words, "--dry-run")
    answer = call(*words, "--json", become=partial(deny, ["userfaultfd"], errno.EPERM))
    assert answer.report["bytes_moved"] == 100 * PAGE
    assert answer.report["left_by_reason"] == {"unmapped": (MANY - 100) * PAGE}
    assert any("userfaultfd(2)" in note for note in answer.report["notes"])
    assert shmem(group, MANY * PAGE) == {0: (MANY - 100) * PAGE, 2: 100 * PAGE}
