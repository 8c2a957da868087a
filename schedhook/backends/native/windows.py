"""Windows onto an open object: parts of it that are mapped in this process for a moment.

A window holds those pages that exist and that no process maps. They are found and moved in it as
in any process.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

from schedhook.backends.native import _core
from schedhook.backends.native.ranges import Range, locate_range, sweep_range
from schedhook.backends.native.window_lock import window_lock
from schedhook.host.page_sizes import BASE_PAGE
from schedhook.host.processes import read_status
from schedhook.host.swap import has_swap_in_use
from schedhook.roles.backend import Limits, PageRun, Sweep
from schedhook.values.errors import BackendError, from_errno
from schedhook.values.extents import Extents
from schedhook.values.sizes import sum_sizes

_SIZE = 64 << 20
"""Bytes that a window maps at most, unless a page is larger."""
_BLOCK = 512
"""The unit of st_blocks; stat(2)."""
_CAP_FOWNER = 3
"""<linux/capability.h>"""
_MOST_HOLES = 4 << 20
"""Pages of holes that are looked at one by one: 16 GiB of small pages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Windows:
    """The pages of one open object that no process maps. Positions are offsets in the object."""

    file: int
    """The object, open for reading."""
    pagemap: int
    """/proc/self/pagemap"""
    page_size: int
    """Bytes: the base page, or a huge page of hugetlbfs."""
    unwritten: bool
    """Whether to look for pages that fallocate(2) allocated and no process has used.

    lseek(2) and mincore(2) take them for holes.
    """

    @property
    def is_huge(self) -> bool:
        return self.page_size > BASE_PAGE

    @property
    def _step(self) -> int:
        """The size of a window, whose offset is a multiple of it."""
        return max(_SIZE, self.page_size)

    @property
    def size(self) -> int:
        """The object's size in whole pages."""
        return _round_up(os.fstat(self.file).st_size, self.page_size)

    @property
    def allocated(self) -> int:
        """The bytes that the object has in memory and in swap."""
        return os.fstat(self.file).st_blocks * _BLOCK

    def locate(self, start: int, end: int) -> Iterator[PageRun]:
        """Yield where the pages in [start, end) lie, in ascending order."""
        for offset, size, address in self._mapped(start, end):
            shift = offset - address
            try:
                runs = locate_range(self._range(address, size))
            except OSError as error:
                raise from_errno(error.errno or 0, os.getpid(), "move_pages") from error
            for run in runs:
                yield replace(run, start=run.start + shift, end=run.end + shift)

    def sweep(
        self,
        start: int,
        end: int,
        destinations: Mapping[int, int],
        *,
        shared: bool,
        limits: Limits,
        only: Extents | None,
    ) -> Sweep:
        """Move the pages in [start, end); see schedhook.roles.backend."""
        total = Sweep()
        for offset, size, address in self._mapped(start, end):
            shift = offset - address
            done, error = sweep_range(
                self._range(address, size),
                destinations,
                shared=shared,
                limits=limits,
                only=_shifted(only, offset, offset + size, -shift),
            )
            total = _sum(total, done, shift)
            if error:
                raise from_errno(error, os.getpid(), "move_pages")
        return total

    def _mapped(self, start: int, end: int) -> Iterator[tuple[int, int, int]]:
        """Map the parts of [start, end) one after the other; yield offset, size and address.

        Raise BackendError if that would take too long, or bring pages back from swap.
        """
        if self.is_huge and is_sparse(self.file, self.page_size):
            raise BackendError("a file of huge pages has too many holes to look at", errno.EFBIG)
        if not self.is_huge and has_swap_in_use() and not tells_swapped_pages(self.file):
            raise BackendError(
                "the kernel does not say which pages of a file of another user are in swap;"
                " run as root, or with CAP_FOWNER",
                errno.EPERM,
            )
        for offset, size in self._parts(start, min(end, self.size)):
            with window_lock(self.file, offset, size):
                address = self._open(offset, size)
                try:
                    yield offset, size, address
                finally:
                    _core.close_window(address, size)

    def _open(self, offset: int, size: int) -> int:
        sizes = size, self.page_size, BASE_PAGE
        try:
            return _core.open_window(self.file, self.pagemap, offset, *sizes, self.unwritten)
        except OSError as error:
            raise _cannot_map(error) from error

    def _parts(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Yield (offset, size) of the windows that cover what exists in [start, end)."""
        while start < end:
            found: tuple[int, int] | None = (start, end)
            if not (self.unwritten or self.is_huge):  # hugetlbfs does not tell its holes
                found = self._next_data(start)
            if found is None:
                return
            first, last = found
            stop = min(end, self._end_of_window(first))
            if first < min(stop, last):
                yield first, min(stop, last) - first
            start = stop

    def _next_data(self, start: int) -> tuple[int, int] | None:
        """Return where the next data begins, and how far data reaches in its window; None: nowhere.

        A window costs as much as it maps, and data can be far apart.
        """
        first = _seek(self.file, start, os.SEEK_DATA)
        hole = None if first is None else _seek(self.file, first, os.SEEK_HOLE)
        if first is None or hole is None:
            return None
        more, end = _seek(self.file, hole, os.SEEK_DATA), self._end_of_window(first)
        is_last = more is None or more >= end
        return first, _round_up(hole, self.page_size) if is_last else end

    def _end_of_window(self, offset: int) -> int:
        return offset // self._step * self._step + self._step

    def _range(self, address: int, size: int) -> Range:
        me, none = os.getpid(), -1
        scan = _core.can_scan(self.pagemap)
        pages = self.page_size, BASE_PAGE, 0
        return me, none, none, self.pagemap, address, address + size, *pages, scan, none, 0, b""


@contextmanager
def open_windows(file: int, page_size: int, *, unwritten: bool = False) -> Iterator[Windows]:
    """Open windows onto an object that is open for reading. Raise BackendError without /proc."""
    try:
        pagemap = os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        number = error.errno or 0
        raise BackendError(f"cannot open {error.filename}: {error.strerror}", number) from error
    try:
        yield Windows(file=file, pagemap=pagemap, page_size=page_size, unwritten=unwritten)
    finally:
        os.close(pagemap)


def has_unwritten(file: int) -> bool:
    """Return whether an object on tmpfs has pages that are allocated and were never used.

    If its holes are too large to be searched, return False.
    """
    return os.fstat(file).st_blocks * _BLOCK > _data(file) and not is_sparse(file, BASE_PAGE)


def is_sparse(file: int, page_size: int) -> bool:
    """Return whether looking at each page of an object's holes would take too long."""
    status = os.fstat(file)
    return status.st_size - status.st_blocks * _BLOCK > _MOST_HOLES * page_size


def tells_swapped_pages(file: int) -> bool:
    """Return whether mincore(2) tells which pages of the file are in memory, else it says all.

    It tells only a caller who owns the file, or might open it for writing.
    """
    if os.fstat(file).st_uid == os.geteuid():
        return True
    if os.access(f"/proc/self/fd/{file}", os.W_OK, effective_ids=True):
        return True
    return bool(read_status(os.getpid()).cap_effective & 1 << _CAP_FOWNER)


def _data(file: int) -> int:
    """Return the bytes of an object that are not holes."""
    total, start = 0, _seek(file, 0, os.SEEK_DATA)
    while start is not None:
        end = _seek(file, start, os.SEEK_HOLE)
        if end is None:  # truncated just now
            return total
        total += _round_up(end, BASE_PAGE) - start
        start = _seek(file, end, os.SEEK_DATA)
    return total


def _seek(file: int, offset: int, whence: int) -> int | None:
    """Return the next data or hole at or after `offset`; None if there is none."""
    try:
        return os.lseek(file, offset, whence)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return None
        raise


def _cannot_map(error: OSError) -> BackendError:
    number = error.errno or 0
    if number in (errno.ENOSYS, errno.EINVAL):
        why = "this kernel cannot map only those that exist (userfaultfd(2), Linux 5.14)"
    elif number == errno.EPERM:
        why = "a seccomp filter or a security module denies userfaultfd(2) or mincore(2)"
    else:
        why = os.strerror(number)
    return BackendError(f"cannot map the pages of a shared-memory object: {why}", number)


def _shifted(extents: Extents | None, start: int, end: int, shift: int) -> Extents | None:
    """Return the parts of the extents in [start, end), moved by `shift`; None for all."""
    if extents is None:
        return None
    parts = ((max(first, start), min(last, end)) for first, last in extents)
    return Extents((first + shift, last + shift) for first, last in parts if first < last)


def _sum(total: Sweep, more: Sweep, shift: int) -> Sweep:
    """Return both together; the addresses in `more` are moved by `shift`."""
    failures = [
        replace(failure, start=failure.start + shift, end=failure.end + shift)
        for failure in more.failures
    ]
    return Sweep(
        moved=sum_sizes((total.moved, more.moved)),
        failures=(*total.failures, *failures),
        calls=total.calls + more.calls,
    )


def _round_up(size: int, unit: int) -> int:
    return -(-size // unit) * unit
