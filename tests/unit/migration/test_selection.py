"""Memory that the request leaves alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from schedhook.backends.simulated import PAGE, SimulatedArea, SimulatedBackend
from schedhook.backends.simulated.target import SimulatedTarget
from schedhook.testing.hosts import (
    FakeArea,
    FakeNode,
    write_cgroup_mounts,
    write_file,
    write_host,
    write_process,
)
from schedhook.values.model import MemoryKind, Outcome, Shared
from tests.unit.relocation.simulation import AT, host, run


def test_kinds_that_were_not_requested_stay_and_are_reported() -> None:
    backend = host([0] * 10, kind=MemoryKind.SHMEM, name="x")
    report = run(backend, kinds=frozenset({MemoryKind.ANON}))
    assert report.outcome is Outcome.NOTHING_TO_DO
    assert report.kept == {"shmem": 10 * PAGE}


def test_shared_pages_stay_on_request() -> None:
    backend = SimulatedBackend()
    for pid in (100, 101):
        backend.add_process(pid, areas=[SimulatedArea(start=AT, nodes=[0] * 5, name="segment")])
    report = run(backend, shared=Shared.NONE)
    assert report.left_by_reason == {"shared": 5 * PAGE}


def library(
    host: Path, *, copies: int, mappers: int = 9, device: str = "254:0", is_shared: bool = False
) -> None:
    """Write a process that maps a library of ten pages, of which `copies` are its own."""
    write_host(host, [FakeNode(number=node, cpus=f"{node}") for node in range(4)])
    write_cgroup_mounts(host)
    area = FakeArea(
        start=AT,
        size=10 * PAGE,
        pages={0: 10},
        path="/lib/x.so",
        anon=copies,
        mappers=mappers,
        device=device,
        is_shared=is_shared,
    )
    write_process(host, 100, areas=[area], nodes="0-3")


@pytest.mark.parametrize("copies", [0, 4, 10])
def test_copies_of_a_files_pages_move_and_the_files_own_stay(tmp_path: Path, copies: int) -> None:
    """The copies are the job's also if fork(2) shares them; other processes map the rest."""
    library(tmp_path, copies=copies)
    report = run(SimulatedBackend(tmp_path))
    assert report.bytes_moved == copies * PAGE
    assert report.kept == ({"shared-file": (10 - copies) * PAGE} if copies < 10 else {})
    assert not report.bytes_left


@pytest.mark.parametrize("is_shared", [False, True])
def test_programs_of_a_host_whose_files_are_on_tmpfs(tmp_path: Path, is_shared: bool) -> None:
    """As those of a host without disks: the C library stays, and shared memory moves."""
    library(tmp_path, copies=0, device="0:21", is_shared=is_shared)
    write_file(tmp_path, "proc/100/mountinfo", "23 22 0:21 / / rw - tmpfs tmpfs rw")
    report = run(SimulatedBackend(tmp_path))
    assert report.kept == ({} if is_shared else {"shared-file": 10 * PAGE})
    assert report.bytes_moved == (10 * PAGE if is_shared else 0)


def test_copies_stay_with_the_file_if_nothing_tells_them_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SimulatedTarget, "survey", lambda *_: None)
    library(tmp_path, copies=4)
    assert run(SimulatedBackend(tmp_path)).kept == {"shared-file": 10 * PAGE}


def test_kinds_that_were_not_requested_stay_with_their_copies(tmp_path: Path) -> None:
    library(tmp_path, copies=4)
    report = run(SimulatedBackend(tmp_path), kinds=frozenset({MemoryKind.ANON}))
    assert report.kept == {"file": 10 * PAGE}
