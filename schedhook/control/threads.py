"""Threads, and the processors that they may use: sched_setaffinity(2), sched_getaffinity(2).

These calls take a number, no pidfd, and a number is free once its thread has ended. So a thread is
identified by its process and start time too, which are checked before and after each call.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from schedhook.host.processes import open_task, read_start_time, thread_ids
from schedhook.host.vanishing import read_living
from schedhook.values.errors import NoPermissionError, ProcessGoneError, RefusedError
from schedhook.values.log import get_logger
from schedhook.values.sets import CpuSet

_log = get_logger()


@dataclass(frozen=True, slots=True)
class Thread:
    """One thread, and not a later one that has its number."""

    pid: int
    tid: int
    start_time: int
    """In clock ticks after boot. Two threads that had one number within one tick look alike."""

    def lives(self, root: Path = Path("/")) -> bool:
        """Return whether the number still means this thread."""
        try:
            return read_start_time(self.pid, root, self.tid) == self.start_time
        except ProcessGoneError:
            return False


def read_threads(pid: int, root: Path = Path("/")) -> list[Thread]:
    """Return the threads of the process that has the number now.

    Raise ProcessGoneError if there is none.
    """
    started = read_living(thread_ids(pid, root), lambda tid: read_start_time(pid, root, tid))
    return [Thread(pid, tid, start_time) for tid, start_time in started]


def member_threads(pids: Callable[[], Iterable[int]], root: Path = Path("/")) -> list[Thread]:
    """Return the threads of the processes that `pids` returns both before and after they are read.

    By the time that its threads are read, a number from a cgroup may be another process's.
    """
    found = list(read_living(pids(), lambda pid: read_threads(pid, root)))
    members = set(pids())
    return [thread for pid, threads in found if pid in members for thread in threads]


def affinity(thread: Thread, root: Path = Path("/")) -> CpuSet:
    """Return the processors that the thread may use, empty if it has ended."""
    try:
        cpus = CpuSet(os.sched_getaffinity(thread.tid))
    except ProcessLookupError:
        return CpuSet()
    except OSError as error:
        raise RefusedError(
            f"cannot read the affinity of thread {thread.tid}: {error.strerror}"
        ) from None
    return cpus if thread.lives(root) else CpuSet()


def bind(thread: Thread, cpus: CpuSet, root: Path = Path("/")) -> bool:
    """Bind the thread to `cpus`, and return whether that was done.

    It is not if the thread has ended or the set is empty. Raise RefusedError if the thread's cpuset
    allows none of the processors, NoPermissionError if this process may not bind it.
    """
    from schedhook.backends.native import _core  # noqa: PLC0415 - not needed to read

    if not cpus:
        return False
    try:
        task = open_task(thread.pid, thread.tid, root)
    except ProcessGoneError:
        return False
    try:
        # What was opened is this thread's: the thread was there before, and is there afterwards.
        if not thread.lives(root):
            return False
        bound = _core.bind(thread.tid, task, cpus.mask())
    except ProcessLookupError:
        return False
    except PermissionError:
        raise NoPermissionError(
            f"cannot bind thread {thread.tid}: run as root or with CAP_SYS_NICE"
        ) from None
    except OSError as error:
        raise RefusedError(
            f"thread {thread.tid} may not use processors {cpus}: {error.strerror}"
        ) from None
    finally:
        os.close(task)
    if not bound and (root / "proc" / str(thread.tid)).exists():
        _log.warning(
            "a thread ended while it was bound; the thread that has its number now may have been"
            " bound instead",
            thread=thread.tid,
            process=thread.pid,
            cpus=str(cpus),
        )
    return bound
