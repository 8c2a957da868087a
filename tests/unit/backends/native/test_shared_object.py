"""Objects of this process, on a host with any number of nodes."""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from schedhook.backends.native import _core, shared_object, windows
from schedhook.backends.native.backend import NativeBackend
from schedhook.backends.native.object_file import MappingGoneError, OtherFileError
from schedhook.backends.native.windows import open_windows
from schedhook.roles.backend import Limits, SharedObject
from schedhook.values.errors import (
    BackendError,
    NoPermissionError,
    ProcessGoneError,
    SchedhookError,
)
from schedhook.values.model import MemoryKind

PAGE = mmap.PAGESIZE


@pytest.fixture
def file() -> Iterator[int]:
    file = os.memfd_create("object")
    os.ftruncate(file, 64 * PAGE)
    yield file
    os.close(file)


@contextmanager
def mapped(file: int) -> Iterator[SharedObject]:
    """Map the file, untouched, and return the object; skip the test if it may not be opened."""
    backend = NativeBackend()
    with mmap.mmap(file, 64 * PAGE), backend.attach(os.getpid()) as target:
        found = {each.object_id.inode: each for each in backend.shared_objects([target])}
        shared = found[os.fstat(file).st_ino]
        try:
            shared.areas()
        except (NoPermissionError, BackendError) as error:
            pytest.skip(str(error))
        yield shared


def test_an_area_of_what_no_process_maps(file: int) -> None:
    with mapped(file) as shared:
        assert shared.areas() == ()
        os.pwrite(file, b"x" * 8 * PAGE, 16 * PAGE)
        (area,) = shared.areas()
        assert (area.start, area.end, area.kind) == (0, 64 * PAGE, MemoryKind.SHMEM)
        assert area.resident == shared.allocated() == 8 * PAGE
        assert shared.span == 64 * PAGE
        runs = shared.locate(area, 0, 64 * PAGE)
        assert (runs[0].start, runs[-1].end) == (16 * PAGE, 24 * PAGE)
        assert shared.locate(area, 0, 20 * PAGE)[-1].end == 20 * PAGE
        assert shared.allocated() == 8 * PAGE


def test_pages_that_were_allocated_and_never_used(file: int) -> None:
    with mapped(file) as shared:
        os.posix_fallocate(file, 0, 32 * PAGE)
        assert sum(area.resident for area in shared.areas()) == 32 * PAGE
        assert shared.allocated() == 32 * PAGE


def test_a_sweep_that_cannot_open_the_object(file: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a failure of these pages, not of the whole relocation."""

    def refuse(*_: object) -> tuple[int, int]:
        raise BackendError("cannot open it", errno.EMFILE)

    os.pwrite(file, b"x" * 8 * PAGE, 0)
    with mapped(file) as shared:
        (area,) = shared.areas()
        monkeypatch.setattr(shared_object, "open_object", refuse)
        done = shared.sweep(area, 0, 64 * PAGE, {0: 1}, shared=True, limits=Limits())
        assert [(each.errno, each.size) for each in done.failures] == [(errno.EMFILE, 8 * PAGE)]


def test_an_object_that_is_no_longer_mapped(file: int) -> None:
    with mapped(file) as shared:
        pass
    assert not shared.alive()
    with pytest.raises(ProcessGoneError):
        shared.areas()


def test_a_layer_of_another_file_system_cannot_be_looked_into(
    file: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its pages are reported; those of a mapped device are none."""
    found = list[SchedhookError]()
    with mapped(file) as shared:
        for error in (OtherFileError("another file"), MappingGoneError("a device")):
            monkeypatch.setattr(shared_object, "open_object", partial(_raise, error))
            with pytest.raises(SchedhookError) as raised:
                shared.areas()
            found.append(raised.value)
    assert [type(each) for each in found] == [BackendError, ProcessGoneError]
    assert "overlayfs" in str(found[0])


def _raise(error: SchedhookError, *_: object) -> tuple[int, int]:
    raise error


def test_descriptors_are_closed(file: int) -> None:
    with mapped(file) as shared:
        before = sorted(each.name for each in Path("/proc/self/fd").iterdir())
        os.pwrite(file, b"x" * PAGE, 0)
        (area,) = shared.areas()
        shared.sweep(area, 0, PAGE, {}, shared=True, limits=Limits())
        assert sorted(each.name for each in Path("/proc/self/fd").iterdir()) == before


def test_a_file_of_huge_pages_that_is_nearly_all_holes() -> None:
    """Only a look at each page would tell that it is a hole."""
    try:
        file = os.memfd_create("object", os.MFD_HUGETLB)
    except OSError:
        pytest.skip("no pool of huge pages")
    os.ftruncate(file, 1 << 60)
    with (
        open_windows(file, os.fstat(file).st_blksize) as found,
        pytest.raises(BackendError, match="too many holes"),
    ):
        list(found.locate(0, found.size))
    os.close(file)


def test_windows_cover_data_only(file: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if an object is larger than a window, and its data are far apart."""
    monkeypatch.setattr(windows, "_SIZE", 16 * PAGE)
    sizes = list[int]()
    real = _core.open_window

    def count(*arguments: int) -> int:
        sizes.append(arguments[3] // PAGE)
        return real(*arguments)  # type: ignore[arg-type]

    for page in (0, 1, 20, 40, 44, 45, 63):
        os.pwrite(file, b"x", page * PAGE)
    with mapped(file) as shared:
        monkeypatch.setattr(_core, "open_window", count)
        (area,) = shared.areas()
        assert area.resident == 7 * PAGE
        assert sizes == [2, 1, 8, 1]
        runs = shared.locate(area, 0, 64 * PAGE)
        assert [(run.start // PAGE, run.end // PAGE) for run in runs] == [
            (0, 2), (20, 21), (40, 41), (44, 46), (63, 64)
        ]  # fmt: skip
