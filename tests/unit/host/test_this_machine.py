"""The readers on the running kernel's own files."""

from __future__ import annotations

import ctypes
import mmap
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from schedhook.host import cgroups, processes, smaps
from schedhook.host.topology import read_topology
from schedhook.values.errors import NoPermissionError, ProcessGoneError
from schedhook.values.model import Area, MemoryKind
from schedhook.values.objects import ObjectId, ObjectKind

MIB = 1 << 20
ME = os.getpid()


def area_at(address: int) -> Area:
    (found,) = (area for area in processes.read_areas(ME) if area.start <= address < area.end)
    return found


def address_of(mapping: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(mapping))


def test_topology() -> None:
    topology = read_topology()
    assert set(os.sched_getaffinity(0)) <= topology.cpus
    assert topology.memory_nodes
    for number in topology.memory_nodes:
        node = topology.node(number)
        assert 0 < node.memory_free <= node.memory_total
        assert 0 <= node.memory_reclaimable <= node.memory_total
        assert topology.distance(number, number) == 10
    total = sum(node.memory_total for node in topology.nodes.values())
    # Less if a virtual machine's balloon has not given everything to a node.
    assert 0 < total <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_this_process() -> None:
    status = processes.read_status(ME)
    assert status.uid == os.getuid()
    assert status.tgid == ME
    assert status.allowed_cpus == os.sched_getaffinity(0)
    assert status.allowed_nodes <= read_topology().online
    assert processes.read_identity(ME) == processes.read_identity(ME)
    assert ME in processes.all_pids()
    assert ME in processes.thread_ids(ME)
    assert processes.live_task(ME) == ME
    assert not processes.is_kernel_thread(ME)


def test_start_time_is_in_clock_ticks_after_boot() -> None:
    uptime = float(Path("/proc/uptime").read_text(encoding="ascii").split()[0])
    started = processes.read_identity(ME).start_time / os.sysconf("SC_CLK_TCK")
    assert 0 < started <= uptime


def test_residency_agrees_with_the_resident_size() -> None:
    resident = sum(processes.residency(processes.read_areas(ME)).values())
    text = Path("/proc/self/status").read_text(encoding="ascii")
    rss = int(text.partition("VmRSS:")[2].split()[0]) << 10
    # The resident size is kept per processor and lags by some pages on some kernels.
    assert abs(resident - rss) < max(rss // 20, 2 * MIB)
    pss = smaps.read_pss(ME)
    assert abs(sum(size for size, _ in pss.values()) - rss) < max(rss // 20, 2 * MIB)
    assert all(share <= size for size, share in pss.values())


def test_anonymous_memory() -> None:
    with mmap.mmap(-1, 4 * MIB, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.write(b"x" * (4 * MIB))
        area = area_at(address_of(memory))
    assert area.kind is MemoryKind.ANON
    assert area.resident >= 4 * MIB
    assert area.object_id is None
    assert set(area.residency) <= read_topology().memory_nodes


def test_shared_anonymous_memory() -> None:
    with mmap.mmap(-1, MIB) as memory:
        memory.write(b"x" * MIB)
        area = area_at(address_of(memory))
    assert (area.kind, area.is_shared, area.resident) == (MemoryKind.SHMEM, True, MIB)
    assert area.object_id is not None
    assert area.object_id.kind is ObjectKind.ANONYMOUS


def test_a_memory_file_with_a_strange_name() -> None:
    name = "strange \t=\n N0=5 name"
    handle = os.memfd_create(name)
    os.ftruncate(handle, MIB)
    with mmap.mmap(handle, MIB) as memory:
        memory.write(b"x" * MIB)
        area = area_at(address_of(memory))
    inode = os.fstat(handle).st_ino
    os.close(handle)
    assert area.kind is MemoryKind.SHMEM
    assert area.path == f"/memfd:{name} (deleted)"
    assert area.object_id is not None
    assert (area.object_id.inode, area.object_id.kind) == (inode, ObjectKind.MEMFD)
    assert area.resident == MIB


def test_a_private_file_mapping_before_and_after_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "a file"
    path.write_bytes(b"x" * MIB)
    with (
        path.open("r+b") as file,
        mmap.mmap(file.fileno(), MIB // 2, mmap.MAP_PRIVATE, offset=MIB // 2) as memory,
    ):
        assert memory[::4096] == b"x" * 128
        address = address_of(memory)
        before = area_at(address)
        memory.write(b"y" * (MIB // 2))
        after = area_at(address)
        device = os.fstat(file.fileno()).st_dev
    assert before.path == str(path)
    if before.kind is MemoryKind.FILE:  # else the temporary directory is a tmpfs
        assert before.object_id == ObjectId(
            f"{os.major(device)}:{os.minor(device)}", path.stat().st_ino
        )
        assert before.offset == MIB // 2
    assert after.object_id is None
    assert after.resident == MIB // 2


def test_a_file_of_a_tmpfs() -> None:
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as file:
        file.truncate(MIB)
        with mmap.mmap(file.fileno(), MIB) as memory:
            memory.write(b"x" * MIB)
            area = area_at(address_of(memory))
        assert area.kind is MemoryKind.SHMEM
        assert area.path == file.name


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    code = "import sys; print('on', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"on\n"
        yield process
        process.kill()


def test_another_process_and_its_end(child: subprocess.Popen[bytes]) -> None:
    assert processes.residency(processes.read_areas(child.pid))
    assert sys.executable in processes.read_command(child.pid)
    child.kill()
    deadline = time.monotonic() + 20
    while processes.read_status(child.pid).state != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.01)
    # Not yet waited for: the number is still in use, the memory is gone.
    with pytest.raises(ProcessGoneError):
        processes.read_areas(child.pid)
    child.wait()
    for reader in (processes.read_areas, processes.read_status, processes.read_identity):
        with pytest.raises(ProcessGoneError):
            reader(child.pid)


# exit(2) of one thread alone has no function in the C library.
EXIT_CALL = {"x86_64": 60, "aarch64": 93, "riscv64": 93, "ppc64le": 1, "s390x": 1}


def test_a_program_whose_first_thread_has_exited() -> None:
    code = (
        "import ctypes, threading\n"
        "libc = ctypes.CDLL(None)\n"
        "threading.Thread(target=lambda: (print('on', flush=True), libc.pause())).start()\n"
        f"libc.syscall({EXIT_CALL[os.uname().machine]}, 0)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"on\n"
            deadline = time.monotonic() + 20
            while processes.read_status(process.pid).state != "Z":
                assert time.monotonic() < deadline
                time.sleep(0.01)
            assert processes.live_task(process.pid) != process.pid
            assert processes.residency(processes.read_areas(process.pid))
        finally:
            process.kill()


def test_every_process_of_this_machine_is_read_or_refused_for_a_reason() -> None:
    read = 0
    for pid in processes.all_pids():
        try:
            areas = processes.read_areas(pid)
            assert processes.read_command(pid).isprintable()
            processes.read_status(pid)
            cgroups.cgroup_of(pid)
        except (ProcessGoneError, NoPermissionError):
            continue
        assert all(area.start < area.end for area in areas)
        assert all(one.end <= two.start for one, two in pairwise(areas))
        read += 1
    assert read >= 1


def test_the_cgroup_of_this_process_contains_it() -> None:
    cgroup = cgroups.cgroup_of(ME)
    assert ME in cgroups.pids(cgroup)
    assert os.sched_getaffinity(0) <= cgroups.effective_cpus(cgroup)
    assert processes.read_status(ME).allowed_nodes == cgroups.effective_nodes(cgroup)
    assert cgroups.resolve_cgroup(str(cgroup.path)) == cgroup
    assert cgroups.resolve_cgroup(cgroup.name).path == cgroup.path
    assert not cgroups.frozen(cgroup)
