"""How much of the objects that were not read no process maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest

from schedhook.backends.simulated import PAGE, SimulatedBackend
from schedhook.migration.census import Census
from schedhook.migration.move import Move
from schedhook.migration.objects import Unread
from schedhook.migration.processes import MovingProcess
from schedhook.migration.selection import Selection, select
from schedhook.relocation.unread import count_unmapped
from schedhook.testing.hosts import write_cgroup, write_cgroup_mounts, write_file, write_process
from schedhook.values.model import Area, MemoryKind
from schedhook.values.sets import NodeSet

MAPPED = Area(
    start=0x1000,
    end=0x1000 + 16 * PAGE,
    kind=MemoryKind.SHMEM,
    page_size=PAGE,
    residency={0: 4 * PAGE, 1: 2 * PAGE},
    is_shared=True,
)


@dataclass
class FakeMove:
    """The part of a move that is looked at."""

    processes: Sequence[MovingProcess]
    unread_objects: Sequence[Unread]
    sources: NodeSet = field(default_factory=lambda: NodeSet({0}))


def unmapped(root: Path, *, most: int = 100 * PAGE, pids: Sequence[int] = (5,)) -> list[int]:
    """Count for processes of which the first maps MAPPED; return what each of them has."""
    backend = SimulatedBackend()
    processes = []
    for pid in pids:
        backend.add_process(pid)
        processes.append(MovingProcess(target=backend.attach(pid)))
    processes[0].selection = select(
        {5: [MAPPED]}, NodeSet({0}), Selection(), Census(backend, lambda _: None)
    )[5]
    unread = [Unread(pid=pid, most=most, why="not permitted") for pid in pids]
    count_unmapped(cast(Move, FakeMove(processes, unread)), root)
    return [process.unmapped for process in processes]


def write_job(root: Path, shmem: str | None, pids: Sequence[int] = (5,)) -> None:
    write_cgroup_mounts(root)
    for pid in pids:
        write_process(root, pid, cgroup="0::/job\n")
    write_cgroup(root, "job", pids=pids)
    if shmem is not None:
        text = f"anon N0=4096 N1=0\nfile N0=0 N1=0\n{shmem}\nfile_mapped N0=0 N1=0\n"
        write_file(root, "sys/fs/cgroup/job/memory.numa_stat", text)


def test_what_is_charged_and_not_mapped(tmp_path: Path) -> None:
    write_job(tmp_path, f"shmem N0={10 * PAGE} N1={50 * PAGE}")
    assert unmapped(tmp_path) == [6 * PAGE]


def test_several_processes_of_one_cgroup(tmp_path: Path) -> None:
    write_job(tmp_path, f"shmem N0={10 * PAGE} N1=0", pids=(5, 6))
    assert unmapped(tmp_path, pids=(5, 6)) == [6 * PAGE, 0]


def test_not_more_than_the_objects_can_have(tmp_path: Path) -> None:
    write_job(tmp_path, f"shmem N0={10 * PAGE} N1=0")
    assert unmapped(tmp_path, most=2 * PAGE) == [2 * PAGE]


def test_nothing_is_charged_that_no_process_maps(tmp_path: Path) -> None:
    write_job(tmp_path, f"shmem N0={3 * PAGE} N1=0")
    assert unmapped(tmp_path) == [0]


@pytest.mark.parametrize("cgroups", [True, False])
def test_nothing_tells_what_is_charged(tmp_path: Path, cgroups: bool) -> None:
    if cgroups:
        write_job(tmp_path, None)
    assert unmapped(tmp_path, most=2 * PAGE) == [2 * PAGE]
