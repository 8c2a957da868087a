"""The mappings through which processes share memory, and the file systems in memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from schedhook.host.areas import read_areas
from schedhook.host.memory_files import memory_devices, read_shared_mappings
from schedhook.testing.hosts import PAGE, FakeArea, write_file, write_process
from schedhook.values.errors import ProcessGoneError
from schedhook.values.model import MemoryKind
from schedhook.values.objects import ObjectId, ObjectKind

START = 0x7F0000000000


def test_shared_mappings_are_found_touched_or_not(tmp_path: Path) -> None:
    areas = [
        FakeArea(start=START, size=4 * PAGE, pages={0: 4}),
        FakeArea(
            start=START + 8 * PAGE,
            size=4 * PAGE,
            path="/memfd:heap (deleted)",
            device="0:1",
            inode=7,
            is_shared=True,
        ),
        FakeArea(
            start=START + 16 * PAGE,
            size=2 * PAGE,
            pages={1: 2},
            path="/SYSV00000000 (deleted)",
            device="0:1",
            inode=7,
            is_shared=True,
        ),
        FakeArea(start=START + 32 * PAGE, size=4 * PAGE, pages={0: 4}, path="/lib/libc.so"),
    ]
    write_process(tmp_path, 5, areas=areas)
    first, second = read_shared_mappings(5, tmp_path)
    assert (first.start, first.end) == (START + 8 * PAGE, START + 12 * PAGE)
    assert first.object_id == ObjectId("0:1", 7, ObjectKind.MEMFD)
    assert first.name == "/memfd:heap (deleted)"
    assert second.object_id == ObjectId("0:1", 7, ObjectKind.SYSV)


def test_each_ipc_namespace_numbers_its_segments(tmp_path: Path) -> None:
    area = FakeArea(
        start=START,
        size=2 * PAGE,
        pages={1: 2},
        path="/SYSV00000000 (deleted)",
        device="0:1",
        is_shared=True,
    )
    for pid in (5, 6):
        write_process(tmp_path, pid, areas=[area])
        write_file(tmp_path, f"proc/{pid}/ns/ipc", "")
    (five,), (six,) = (list(read_shared_mappings(pid, tmp_path)) for pid in (5, 6))
    assert five.object_id != six.object_id
    assert replace(five.object_id, namespace=0) == replace(six.object_id, namespace=0)
    (its_area,) = read_areas(5, tmp_path)
    assert its_area.object_id == five.object_id


def test_a_process_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(ProcessGoneError):
        list(read_shared_mappings(5, tmp_path))


def test_only_file_systems_in_memory_are_named(tmp_path: Path) -> None:
    """A user chooses the names of what they mount, and cannot choose the type."""
    lines = [
        "22 1 254:0 / / rw - ext4 /dev/vda1 rw",
        "23 22 0:21 / /dev/shm rw,nosuid - tmpfs tmpfs rw",
        "24 22 0:22 / /dev/hugepages rw - hugetlbfs none rw,pagesize=2M",
        "25 22 0:23 / /home/u/tmpfs rw,nosuid - fuse.tmpfs tmpfs rw,user_id=1001",
        "26 22 0:24 / /home/u/nfs rw - nfs4 tmpfs:/export rw",
        "27 22",
    ]
    write_file(tmp_path, "proc/5/mountinfo", "\n".join(lines))
    assert memory_devices(5, tmp_path) == {"0:21": MemoryKind.SHMEM, "0:22": MemoryKind.HUGE}
    assert memory_devices(6, tmp_path) == {}
    # A process that has changed its root directory does not show what is mounted outside of it.
    write_file(tmp_path, "proc/self/mountinfo", lines[1])
    assert memory_devices(6, tmp_path) == {"0:21": MemoryKind.SHMEM}
