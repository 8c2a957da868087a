"""Reading files of /proc/PID; the kernel's errors become those of schedhook."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from schedhook.host.bounded import call_bounded
from schedhook.host.listing import list_numbers
from schedhook.values.errors import NoPermissionError, ProcessGoneError, SchedhookError

# include/linux/sched.h
_PF_EXITING = 0x00000004
_PF_IO_WORKER = 0x00000010
_PF_KTHREAD = 0x00200000

_NEED_LOCK = frozenset({"maps", "numa_maps", "smaps", "cmdline", "environ"})
"""Files whose readers wait for the lock of the process's address space."""
_SHORT_SECONDS = 1.0
"""The time for the beginning of a file, for which no page table is walked."""


class MissingFileError(SchedhookError):
    """The process exists and the file does not: the kernel was built without it."""


def proc_path(pid: int, name: str, root: Path) -> Path:
    """Return the path of /proc/PID/`name`."""
    return root / f"proc/{pid}/{name}"  # one step: jobs have thousands of such files


def read(pid: int, name: str, root: Path) -> bytes:
    """Return the contents of /proc/PID/`name`.

    Raise what `translated` raises; NotAnsweringError if the process keeps its memory's lock.
    """
    path = proc_path(pid, name, root)
    with translated(pid, name, root):
        if path.name in _NEED_LOCK:
            return call_bounded(pid, path.read_bytes, root)
        return path.read_bytes()


def read_beginning(pid: int, name: str, root: Path, most: int) -> bytes:
    """Return at most so many bytes of /proc/PID/`name`. Raise what `read` raises."""

    def read_some() -> bytes:
        with proc_path(pid, name, root).open("rb") as file:
            return file.read(most)

    with translated(pid, name, root):
        return call_bounded(pid, read_some, root, seconds=_SHORT_SECONDS)


def gone(pid: int) -> ProcessGoneError:
    """Return the error for a process that does not exist."""
    return ProcessGoneError(f"process {pid} does not exist (any more)")


@contextlib.contextmanager
def translated(pid: int, name: str, root: Path) -> Iterator[None]:
    """Translate the errors of a block that uses /proc/PID/`name`.

    Raise ProcessGoneError, NoPermissionError, MissingFileError, or SchedhookError for others.
    """
    try:
        yield
    except ProcessLookupError:
        raise gone(pid) from None
    except FileNotFoundError:
        # If the path exists now, another process has got the number in the meantime.
        path = proc_path(pid, name, root)
        if (path.parent / "stat").exists() and not path.exists():
            raise MissingFileError(f"this kernel has no {path}") from None
        raise gone(pid) from None
    except PermissionError:
        path = proc_path(pid, name, root)
        raise NoPermissionError(
            f"{path}: not permitted; run as root or as the process's own user, and not confined by"
            " a security module"
        ) from None
    except OSError as error:
        path = proc_path(pid, name, root)
        raise SchedhookError(f"cannot read {path}: {error.strerror}") from error


def stat_fields(pid: int, root: Path, task: int | None = None) -> list[bytes]:
    """Return the fields of /proc/PID/stat from field 3 (the state) on.

    They follow the last bracket: the name before them can contain spaces and brackets.
    """
    fields = read(pid, task_file("stat", task), root).rpartition(b")")[2].split()
    if len(fields) < 26:
        raise gone(pid)
    return fields


def task_file(name: str, task: int | None) -> str:
    """Return the file's name below /proc/PID: of the process, or of its thread `task`."""
    return name if task is None else f"task/{task}/{name}"


def is_kernel_thread(pid: int, root: Path = Path("/")) -> bool:
    """Return whether this is a kernel thread, which has no memory of its own."""
    return bool(int(stat_fields(pid, root)[6]) & _PF_KTHREAD)


def is_exiting(pid: int, root: Path = Path("/"), task: int | None = None) -> bool:
    """Return whether the process, or its thread `task`, has begun to exit.

    Its memory can be gone before it counts as exited. Raise ProcessGoneError once it does.
    """
    return bool(int(stat_fields(pid, root, task)[6]) & _PF_EXITING)


def is_io_worker(pid: int, task: int, root: Path = Path("/")) -> bool:
    """Return whether a thread is the kernel's, and works for io_uring(7)."""
    return bool(int(stat_fields(pid, root, task)[6]) & _PF_IO_WORKER)


def thread_ids(pid: int, root: Path = Path("/")) -> list[int]:
    """Return the process's threads, in ascending order."""
    with translated(pid, "task", root):
        return list_numbers(proc_path(pid, "task", root))


def live_task(pid: int, root: Path = Path("/")) -> int:
    """Return a thread through which the process's memory can be reached.

    That is the first thread, unless it has called pthread_exit(3) and others still run: then the
    process looks like a zombie with empty maps. Raise ProcessGoneError if all have exited.
    """
    if _is_live(pid, root, None):
        return pid
    for task in thread_ids(pid, root):
        try:
            if _is_live(pid, root, task):
                return task
        except ProcessGoneError:
            continue
    raise ProcessGoneError(f"process {pid} has exited; its parent has yet to wait for it")


def _is_live(pid: int, root: Path, task: int | None) -> bool:
    return stat_fields(pid, root, task)[0] not in b"ZXx"
