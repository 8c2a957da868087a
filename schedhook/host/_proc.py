"""Reading files of /proc/PID, with the kernel's errors turned into the domain's."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from schedhook.host.listing import list_numbers
from schedhook.values.errors import NoPermissionError, ProcessGoneError, SchedhookError

# include/linux/sched.h
_PF_EXITING = 0x00000004
_PF_KTHREAD = 0x00200000


class MissingFileError(SchedhookError):
    """The process is there, the file is not: the kernel was built without it."""


def proc_path(pid: int, name: str, root: Path) -> Path:
    return root / "proc" / str(pid) / name


def read(pid: int, name: str, root: Path) -> bytes:
    """The whole of /proc/PID/`name`. ProcessGoneError, NoPermissionError, SchedhookError."""
    with translated(pid, name, root):
        return proc_path(pid, name, root).read_bytes()


def gone(pid: int) -> ProcessGoneError:
    return ProcessGoneError(f"there is no process {pid} (any more)")


@contextlib.contextmanager
def translated(pid: int, name: str, root: Path) -> Iterator[None]:
    """Around any use of /proc/PID/`name`."""
    path = proc_path(pid, name, root)
    try:
        yield
    except ProcessLookupError:
        raise gone(pid) from None
    except FileNotFoundError:
        # Found now, it is that of another process, which has got the number since.
        if (path.parent / "stat").exists() and not path.exists():
            raise MissingFileError(f"this kernel has no {path}") from None
        raise gone(pid) from None
    except PermissionError:
        raise NoPermissionError(
            f"{path}: not permitted; run as root or as the process's own user, and not confined by"
            " a security module"
        ) from None
    except OSError as error:
        raise SchedhookError(f"cannot read {path}: {error.strerror}") from error


def stat_fields(pid: int, root: Path, task: int | None = None) -> list[bytes]:
    """/proc/PID/stat from field 3 (the state) on: the name before may hold spaces and brackets."""
    fields = read(pid, task_file("stat", task), root).rpartition(b")")[2].split()
    if len(fields) < 26:
        raise gone(pid)
    return fields


def task_file(name: str, task: int | None) -> str:
    """`name` below /proc/PID, for one thread where `task` says which."""
    return name if task is None else f"task/{task}/{name}"


def is_kernel_thread(pid: int, root: Path = Path("/")) -> bool:
    """Kernel threads have no memory of their own to move."""
    return bool(int(stat_fields(pid, root)[6]) & _PF_KTHREAD)


def is_exiting(pid: int, root: Path = Path("/"), task: int | None = None) -> bool:
    """Whether the process, or its thread `task`, has begun to exit: its memory may be gone before
    it counts as exited. ProcessGoneError."""
    return bool(int(stat_fields(pid, root, task)[6]) & _PF_EXITING)


def thread_ids(pid: int, root: Path = Path("/")) -> list[int]:
    """The process's threads, in ascending order."""
    with translated(pid, "task", root):
        return list_numbers(proc_path(pid, "task", root))


def live_task(pid: int, root: Path = Path("/")) -> int:
    """A thread through which the process's memory can be reached.

    That is its first one, unless it has called pthread_exit(3) while others run on: then the
    process looks like a zombie with empty maps. ProcessGoneError where all have exited.
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
