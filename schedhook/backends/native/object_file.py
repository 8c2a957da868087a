"""Open the object behind a mapping, if no user's process can answer for it.

Only files on tmpfs and hugetlbfs are opened, and what the kernel keeps there itself: memfds, System
V segments and shared anonymous memory. Names prove nothing, since users choose them; the device
does. To open a file on a FUSE or network file system, or even to ask for its attributes, could
block for ever.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

from schedhook.backends.native import _core
from schedhook.backends.native.descriptors import (
    MFD_CLOEXEC,
    MFD_HUGE_SHIFT,
    MFD_HUGETLB,
    MFD_NOEXEC_SEAL,
    memfd_create,
)
from schedhook.host.bounded import call_bounded
from schedhook.host.memory_files import SharedMapping, memory_devices
from schedhook.host.page_sizes import BASE_PAGE, read_page_sizes
from schedhook.values.errors import (
    BackendError,
    NoPermissionError,
    ProcessGoneError,
    SchedhookError,
)
from schedhook.values.model import MemoryKind

# <linux/magic.h>
_TMPFS_MAGIC = 0x01021994
_HUGETLBFS_MAGIC = 0x958458F6


class MappingGoneError(SchedhookError):
    """The process no longer maps that object there."""


class OtherFileError(MappingGoneError):
    """The mapping opens another file than the one that /proc/PID/maps shows."""


@cache
def kernel_devices(root: Path = Path("/")) -> dict[str, MemoryKind]:
    """Return the kernel's own mounts of tmpfs and hugetlbfs, by device (`0:1`).

    No mount table lists them, and they exist as long as the kernel runs.
    """
    devices = {}
    for kind, flags in _memfd_flags(root):
        with suppress(OSError):  # a kernel without huge pages of that size
            file = _make_memfd(flags)
            devices[_device(os.fstat(file).st_dev)] = kind
            os.close(file)
    return devices


def open_object(pid: int, mapping: SharedMapping, root: Path = Path("/")) -> tuple[int, int]:
    """Open the object behind a process's mapping for reading; return descriptor and page size.

    The caller makes sure that the pid still means the same process. Raise MappingGoneError if the
    process maps no such object there, ProcessGoneError if it has ended, NoPermissionError if the
    caller may not open it.
    """
    found = _open_path(pid, mapping, root)
    try:
        page_size = _check(found, pid, mapping, root)
        # O_NONBLOCK: not to wait for another process that has a lease on the file, fcntl(2).
        return _open(Path(f"/proc/self/fd/{found}"), os.O_RDONLY | os.O_NONBLOCK, pid), page_size
    finally:
        os.close(found)


def _open_path(pid: int, mapping: SharedMapping, root: Path) -> int:
    """Open the file behind a mapping with O_PATH, by which no file system is asked.

    The kernel lets only privileged callers follow a mapping, but a user the descriptors of their
    own processes.
    """
    try:
        place = root / f"proc/{pid}/map_files/{mapping.start:x}-{mapping.end:x}"
        return call_bounded(pid, lambda: _open(place, os.O_PATH, pid), root)
    except NoPermissionError:
        for link in _descriptors(pid, mapping.name, root):
            with suppress(SchedhookError):
                found = _open(link, os.O_PATH, pid)
                if _identity(found)[:2] == _wanted(mapping):  # several can have that name
                    return found
                os.close(found)
        raise


def _descriptors(pid: int, name: str, root: Path) -> Iterator[Path]:
    """Yield the links in /proc/PID/fd to files of that name."""
    with suppress(OSError):
        for link in (root / f"proc/{pid}/fd").iterdir():
            with suppress(OSError):
                if os.fsencode(link.readlink()).decode("utf-8", "backslashreplace") == name:
                    yield link


def _check(file: int, pid: int, mapping: SharedMapping, root: Path) -> int:
    """Return the page size of `file`, opened with O_PATH, if it is the mapping's object.

    Raise OtherFileError if it is another file, MappingGoneError if it is none that is safe to open
    (or not memory, as a GPU's device on the tmpfs of a container).
    """
    device, inode, mode = _identity(file)
    if (device, inode) != _wanted(mapping):
        raise OtherFileError(f"process {pid} has mapped another file at {mapping.start:#x}")
    # While the file is held, no other file system can get the number of its device.
    if stat.S_ISREG(mode) and (
        device in kernel_devices(root) or device in memory_devices(pid, root)
    ):
        kind, block_size = _core.file_system(file)
        if kind == _TMPFS_MAGIC:
            return BASE_PAGE
        if kind == _HUGETLBFS_MAGIC:
            return block_size
    raise MappingGoneError(f"process {pid} maps a file at {mapping.start:#x} that is not memory")


def _identity(file: int) -> tuple[str, int, int]:
    """Return device, inode number and mode of a file, which no file system is asked for."""
    major, minor, inode, mode = _core.identify(file)
    return f"{major}:{minor}", inode, mode


def _wanted(mapping: SharedMapping) -> tuple[str, int]:
    return mapping.object_id.device, mapping.object_id.inode


def _open(path: Path, flags: int, pid: int) -> int:
    try:
        return os.open(path, flags | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise MappingGoneError(f"process {pid} no longer has {path}") from error
    except ProcessLookupError as error:
        raise ProcessGoneError(f"process {pid} has exited") from error
    except PermissionError as error:
        raise NoPermissionError(
            f"{path}: not permitted; run as root, or with CAP_CHECKPOINT_RESTORE and"
            " CAP_DAC_READ_SEARCH"
        ) from error
    except OSError as error:
        raise BackendError(f"cannot open {path}: {error.strerror}", error.errno or 0) from error


def _memfd_flags(root: Path) -> Iterator[tuple[MemoryKind, int]]:
    yield MemoryKind.SHMEM, 0
    for size in read_page_sizes(root).pools:
        yield MemoryKind.HUGE, MFD_HUGETLB | (size.bit_length() - 1) << MFD_HUGE_SHIFT


def _make_memfd(flags: int) -> int:
    try:
        return memfd_create("schedhook", flags | MFD_CLOEXEC)
    except OSError as error:
        if error.errno != errno.EACCES:
            raise
        # The setting vm.memfd_noexec requires the seal.
        return memfd_create("schedhook", flags | MFD_CLOEXEC | MFD_NOEXEC_SEAL)


def _device(number: int) -> str:
    return f"{os.major(number)}:{os.minor(number)}"
