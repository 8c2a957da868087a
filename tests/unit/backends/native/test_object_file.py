"""Objects that are opened, and files that are not."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryFile

import pytest

from schedhook.backends.native import _core, object_file
from schedhook.backends.native.object_file import (
    MappingGoneError,
    kernel_devices,
    open_object,
)
from schedhook.host.memory_files import SharedMapping, read_shared_mappings
from schedhook.values.errors import NoPermissionError
from schedhook.values.model import MemoryKind

PAGE = mmap.PAGESIZE


@contextmanager
def mapped(file: int) -> Iterator[SharedMapping]:
    """Map the file in this process, and return the mapping."""
    os.ftruncate(file, PAGE)
    inode = os.fstat(file).st_ino
    with mmap.mmap(file, PAGE):
        found = read_shared_mappings(os.getpid())
        yield next(each for each in found if each.object_id.inode == inode)


def open_or_skip(mapping: SharedMapping) -> tuple[int, int]:
    try:
        return open_object(os.getpid(), mapping)
    except NoPermissionError as error:
        pytest.skip(str(error))


def test_a_memfd_is_opened_for_reading() -> None:
    file = os.memfd_create("object")
    with mapped(file) as mapping:
        assert kernel_devices()[mapping.object_id.device] is MemoryKind.SHMEM
        found, page_size = open_or_skip(mapping)
        assert page_size == PAGE
        assert os.fstat(found).st_ino == os.fstat(file).st_ino
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.write(found, b"x")
        os.close(found)
    with pytest.raises(MappingGoneError):
        open_object(os.getpid(), mapping)
    os.close(file)


def test_the_right_one_of_several_descriptors_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user may not follow the mapping, only descriptors, and chooses their names."""

    def refuse_mappings(path: Path, flags: int, pid: int) -> int:
        if "map_files" in str(path):
            raise NoPermissionError("not permitted")
        return real(path, flags, pid)

    real = object_file._open
    monkeypatch.setattr(object_file, "_open", refuse_mappings)
    others = [os.memfd_create("object") for _ in range(4)]
    with mapped(others[2]) as mapping:
        found, _ = open_object(os.getpid(), mapping)
        assert os.fstat(found).st_ino == os.fstat(others[2]).st_ino
    for file in (found, *others):
        os.close(file)


def test_another_file_is_mapped_there_by_now() -> None:
    file = os.memfd_create("object")
    with mapped(file) as mapping:
        open_files = len(list(Path("/proc/self/fd").iterdir()))
        with pytest.raises(MappingGoneError, match="another file"):
            os.close(open_or_skip(_with_inode(mapping, mapping.object_id.inode + 1))[0])
        assert len(list(Path("/proc/self/fd").iterdir())) == open_files
    os.close(file)


def test_a_file_on_a_disk_is_not_opened(tmp_path: Path) -> None:
    with TemporaryFile(dir=tmp_path) as file, mapped(file.fileno()) as mapping:
        if _core.file_system(file.fileno())[0] == 0x01021994:
            pytest.skip("the temporary directory is a tmpfs")
        with pytest.raises(MappingGoneError, match="not memory"):
            os.close(open_or_skip(mapping)[0])


def _with_inode(mapping: SharedMapping, inode: int) -> SharedMapping:
    return replace(mapping, object_id=replace(mapping.object_id, inode=inode))


def test_an_identity_is_that_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    file = os.open(path, os.O_PATH)
    found = os.fstat(file)
    expected = os.major(found.st_dev), os.minor(found.st_dev), found.st_ino, found.st_mode
    assert _core.identify(file) == expected
    os.close(file)
    with pytest.raises(OSError, match="Bad file descriptor"):
        _core.identify(file)
