"""Memory that is hard to count once, and objects that no honest program makes.

The kernel's own numbers are those of test_shared_counts.py and test_shared_objects.py.
"""

from __future__ import annotations

import errno
import mmap
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from schedhook.testing.native import HUGE
from schedhook.testing.processes import huge_page_pool
from tests.numa.callers import call, deny
from tests.numa.jobs import cgroup
from tests.numa.puppet import PAGE, Advice, Call, Memory, Puppet
from tests.numa.test_shared_counts import agree, charged
from tests.numa.test_shared_objects import (
    MANY,
    attach_segment,
    map_memfd,
    memfd,
    mounted,
    object_of,
    shmem,
    unmapped,
)

pytestmark = pytest.mark.nodes(4)

OLD, NEW = 0, 2
THEIRS = Path("/dev/shm/schedhook-test-theirs")
_MFD_HUGETLB, _CLONE_NEWIPC = 4, 0x0800_0000


@pytest.fixture
def group() -> Iterator[Path]:
    with cgroup("hostile") as path:
        yield path


@pytest.fixture
def puppet(group: Path) -> Iterator[Puppet]:
    with joined(group) as puppet:
        yield puppet


@contextmanager
def joined(group: Path) -> Iterator[Puppet]:
    with Puppet() as puppet:
        (group / "cgroup.procs").write_text(str(puppet.pid))
        yield puppet


def words(group: Path) -> tuple[object, ...]:
    return ("--cgroup", group, "--from", OLD, "--to", NEW)


def map_file(puppet: Puppet, path: Path, size: int) -> Memory:
    file = puppet.open(path, os.O_RDWR | os.O_CREAT)
    puppet.call(Call.FTRUNCATE, file, size)
    return puppet.map(size, flags=mmap.MAP_SHARED, file=file)


# -- counted once --------------------------------------------------------------------------------


def test_huge_pages_that_a_family_shares_except_their_first_pages(
    run: Any, group: Path, puppet: Puppet
) -> None:
    """As chunks of an allocator with headers: numa_maps shows one mapping for the child."""
    memory = puppet.map(20 * HUGE, huge=True)
    puppet.fill(memory, OLD)
    puppet.fork()
    for page in range(20):
        puppet.fill(memory.part(page * 512, page * 512 + 1), OLD)
    there = charged(group, "anon")[OLD]
    assert agree(there, 20 * (HUGE + PAGE), there)
    _, shown = run("show", "--cgroup", group)
    assert agree(shown["residency"][str(OLD)], there, there)
    status, report = run("relocate", *words(group))
    assert (status, report["outcome"]) == (0, "complete")
    assert agree(report["bytes_moved"], there, there)
    assert agree(charged(group, "anon").get(OLD, 0), 0, there)


def test_segments_of_containers_have_the_same_numbers(run: Any, group: Path) -> None:
    with joined(group) as one, joined(group) as two:
        for each in (one, two):
            each.call(Call.UNSHARE, _CLONE_NEWIPC)
            segment = attach_segment(each, MANY * PAGE)
            each.fill(segment, OLD)
            each.advise(segment.part(100, MANY), Advice.DONTNEED)
        assert shmem(group, 2 * MANY * PAGE) == {OLD: 2 * MANY * PAGE}
        status, report = run("relocate", *words(group))
        assert (status, report["bytes_moved"]) == (0, 2 * MANY * PAGE)
        assert shmem(group, 2 * MANY * PAGE) == {NEW: 2 * MANY * PAGE}


def test_programs_on_tmpfs_stay_with_their_other_users(
    run: Any, group: Path, puppet: Puppet, tmp_path: Path
) -> None:
    """As the C library of a host without disks."""
    with mounted(tmp_path, "size=64m") as point, Puppet() as other:
        written = map_file(other, point / "libc.so", MANY * PAGE)
        other.fill(written, OLD)
        other.call(Call.MUNMAP, written.start, written.size)
        views = []
        for each in (puppet, other):
            file = each.open(point / "libc.so", os.O_RDONLY)
            views.append(each.map(MANY * PAGE, file=file, flags=mmap.MAP_PRIVATE, protection=1))
            each.read(views[-1])
        _, report = run("relocate", *words(group))
        assert report["bytes_kept"]["shared-file"] >= MANY * PAGE
        assert other.residency(views[1]) == {OLD: MANY * PAGE}
        for each in (puppet, other):
            each.process.kill()
            each.process.wait()


# -- looked into ---------------------------------------------------------------------------------


def test_windows_of_several_readers(puppet: Puppet) -> None:
    """None takes another one's for a process that maps the pages, as `show` beside a relocation."""
    memory = map_memfd(puppet, MANY * PAGE)
    puppet.fill(memory, OLD)
    puppet.advise(memory, Advice.DONTNEED)
    found: list[dict[int, int]] = []

    def read() -> None:
        with object_of(puppet, "/memfd:object") as shared:
            found.extend(unmapped(shared) for _ in range(10))

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [{OLD: MANY * PAGE}] * 30


def test_a_file_of_huge_pages_that_is_nearly_all_holes(run: Any, puppet: Puppet) -> None:
    """One of 2^60 bytes, of which only a look at each page tells that it is a hole."""
    with huge_page_pool(OLD, HUGE, 4):
        puppet.bind(OLD)
        memory = puppet.map(
            2 * HUGE, flags=mmap.MAP_SHARED, file=memfd(puppet, 1 << 60, _MFD_HUGETLB)
        )
        puppet.fill(memory, OLD)
        puppet.advise(memory, Advice.DONTNEED)
        arguments = ("relocate", "--pid", puppet.pid, "--from", OLD, "--to", NEW)
        _, report = run(*arguments)
        assert any("too many holes" in note for note in report["notes"])
        puppet.process.kill()
        puppet.process.wait()


def test_an_object_that_cannot_be_mapped_and_is_larger_than_its_mapping(
    run: Any, group: Path, puppet: Puppet
) -> None:
    file = memfd(puppet, MANY * PAGE)
    whole = puppet.map(MANY * PAGE, flags=mmap.MAP_SHARED, file=file)
    puppet.fill(whole, OLD)
    puppet.call(Call.MUNMAP, whole.start, whole.size)
    puppet.read(puppet.map(100 * PAGE, flags=mmap.MAP_SHARED, file=file))
    assert shmem(group, MANY * PAGE) == {OLD: MANY * PAGE}
    run("plan", *words(group))
    answer = call(
        "relocate", *words(group), "--json", become=partial(deny, ["userfaultfd"], errno.EPERM)
    )
    assert answer.report["outcome"] == "partial"
    assert answer.report["left_by_reason"] == {"unmapped": (MANY - 100) * PAGE}


def test_a_process_that_has_changed_its_root(run: Any, group: Path, puppet: Puppet) -> None:
    """Its mount table shows no file system outside, where it has mapped a file."""
    memory = map_file(puppet, THEIRS, MANY * PAGE)
    THEIRS.unlink()
    puppet.fill(memory, OLD)
    puppet.advise(memory.part(100, MANY), Advice.DONTNEED)
    puppet.call(Call.CHROOT, puppet.pass_bytes(b"/usr\0"))
    status, report = run("relocate", *words(group))
    assert (status, report["bytes_moved"]) == (0, MANY * PAGE)
    assert shmem(group, MANY * PAGE) == {NEW: MANY * PAGE}


def test_a_file_of_which_the_file_system_is_a_layer(
    run: Any, group: Path, puppet: Puppet, tmp_path: Path
) -> None:
    """What is mapped has another device and number than the file that a mapping opens."""
    subprocess.run(["modprobe", "overlay"], check=True, timeout=60)
    with mounted(tmp_path, "size=64m") as point:
        for name in ("lower", "upper", "work", "merged"):
            (point / name).mkdir()
        layers = f"lowerdir={point}/lower,upperdir={point}/upper,workdir={point}/work"
        command = ["mount", "-t", "overlay", "-o", layers, "none", point / "merged"]
        subprocess.run(command, check=True, timeout=60)
        try:
            memory = map_file(puppet, point / "merged/file", MANY * PAGE)
            puppet.fill(memory, OLD)
            puppet.advise(memory.part(100, MANY), Advice.DONTNEED)
            assert shmem(group, MANY * PAGE) == {OLD: MANY * PAGE}
            _, report = run("relocate", *words(group))
            left = report["left_by_reason"].get("unmapped", 0)
            told_as_a_file = report["bytes_moved"] == 100 * PAGE and not left  # by Linux 6.5
            assert told_as_a_file or left == (MANY - 100) * PAGE
            puppet.process.kill()
            puppet.process.wait()
        finally:
            subprocess.run(["umount", "-l", point / "merged"], check=True, timeout=60)
