"""A target that is this process, on a host with any number of nodes."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import pytest

from schedhook.backends.native import target as target_module
from schedhook.backends.native.backend import NativeBackend
from schedhook.host import areas
from schedhook.host.memory_files import SharedMapping
from schedhook.values.errors import NotAnsweringError
from schedhook.values.model import MemoryKind

PAGE = mmap.PAGESIZE


def test_areas_are_joined_and_mappings_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(areas, "_MANY", 0)
    small = [mmap.mmap(-1, PAGE, flags=mmap.MAP_PRIVATE, prot=prot) for prot in (1, 3) * 8]
    assert all(memory[0] == 0 for memory in small)
    for memory in small[1::2]:
        memory[0] = 1
    with NativeBackend().attach(os.getpid()) as target:
        joined, each = target.areas(), target.mappings()
    assert len(joined) < len(each)
    assert all(area.parts is None for area in each)
    for memory in small:
        memory.close()


def test_maps_is_read_once_for_areas_and_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    backend, file = NativeBackend(), os.memfd_create("object")
    os.ftruncate(file, PAGE)
    read = list[int]()

    def none(pid: int, _: Path) -> list[SharedMapping]:
        read.append(pid)
        return []

    monkeypatch.setattr(target_module, "read_shared_mappings", none)
    with mmap.mmap(file, PAGE), backend.attach(os.getpid()) as target:
        target.areas()
        found = [each.object_id.inode for each in backend.shared_objects([target])]
        assert (os.fstat(file).st_ino in found, read) == (True, [])
        assert backend.shared_objects([target]) == []
        assert read == [os.getpid()], "they can have changed since"
    os.close(file)


def test_where_a_process_that_does_not_answer_can_be_cut() -> None:
    """Asked in the middle of a move, which learns from the next call that it does not answer."""

    def fail(_: object) -> None:
        raise NotAnsweringError("process 1 does not answer")

    with NativeBackend().attach(os.getpid()) as target:
        area = next(each for each in target.areas() if each.kind is MemoryKind.ANON)
        target._held.call = fail  # type: ignore[assignment, attr-defined]
        largest = target.page_sizes.largest(area.page_size)
        assert target.boundary(area, largest + PAGE) == 2 * largest
