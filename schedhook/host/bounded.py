"""Calls that wait for the lock of another process's address space, each given up in time.

A process can keep that lock for ever: a page fault on a file of a FUSE server that never answers
holds it, and any user may run such a server. A read of /proc/PID/maps, numa_maps, smaps,
pagemap, cmdline or environ then waits in the kernel, and so do move_pages(2) and migrate_pages(2).

Nothing but the end of this process interrupts such a call. So another thread makes it, and is left
behind if it does not return. While one is left behind, calls on the same process fail at once. A
user has few of these threads: while they are all waiting, calls on the user's other processes fail.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from schedhook.values.errors import NotAnsweringError
from schedhook.values.log import get_logger

_T = TypeVar("_T")

_log = get_logger()

SECONDS = 3.0
"""For so long a call may wait in the kernel without using a processor."""
_LEAST_SHARE = 0.02
"""A call works if it uses a processor for this share of the time."""
_MOST_OF_A_USER = 4


def call_bounded(
    pid: int, act: Callable[[], _T], root: Path = Path("/"), *, seconds: float = SECONDS
) -> _T:
    """Return what `act` returns, which waits for the lock of that process's address space.

    Raise what it raises, or NotAnsweringError if it waits in the kernel for about `seconds`. A call
    that works is not given up, however long it takes. One that was given up may still go on later,
    so what `act` uses must remain usable until then.
    """
    if getattr(_thread, "is_helper", False):
        return act()
    if _left.refuses(pid, root):
        raise _not_answering(pid)
    lease: _Lease | None = getattr(_thread, "lease", None)
    if lease is None:
        try:
            lease = _thread.lease = _Lease()
        except RuntimeError:  # no more threads: RLIMIT_NPROC or pids.max
            return act()
    helper = lease.helper
    call = _Call(act)
    helper.begin(call)
    try:
        while not call.done.acquire(timeout=seconds):
            if not helper.works(seconds) and _left.add(pid, call, root):
                _log.warning("process does not answer", pid=pid, left_behind=len(_left))
                raise _not_answering(pid)
    except BaseException:  # an interruption, too
        _thread.lease = None
        raise
    return call.result()


def _not_answering(pid: int) -> NotAnsweringError:
    return NotAnsweringError(
        f"process {pid} does not answer: the lock of its memory is held, perhaps by a page fault on"
        " a file whose server hangs (FUSE, a network): see /proc/PID/stack, and end the server"
    )


class _Call(Generic[_T]):
    """A call that another thread makes."""

    def __init__(self, act: Callable[[], _T]) -> None:
        self.done = threading.Lock()
        self.done.acquire()
        self._act = act
        self._result: _T
        self._error: BaseException | None = None

    def make(self) -> None:
        try:
            self._result = self._act()
        except BaseException as error:  # noqa: BLE001 - the caller's thread raises it
            self._error = error
        finally:
            self.done.release()

    def result(self) -> _T:
        if self._error is not None:
            try:
                raise self._error
            finally:
                self._error = None  # it refers to this frame
        return self._result


class _Helper:
    """A thread that makes calls for others. Raise RuntimeError if it cannot be started."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[_Call[Any] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="schedhook-bounded", daemon=True)
        self._thread.start()
        self._clock = time.pthread_getcpuclockid(self._thread.ident or 0)
        self._used = 0.0

    def begin(self, call: _Call[Any]) -> None:
        self._used = time.clock_gettime(self._clock)
        self._calls.put(call)

    def end(self) -> None:
        """Let the thread end as soon as its call has returned."""
        self._calls.put(None)

    def works(self, seconds: float) -> bool:
        """Return whether the thread has used a processor for a part of the last `seconds`.

        A thread also counts as working if it waits for anything but the kernel.
        """
        before, self._used = self._used, time.clock_gettime(self._clock)
        if self._used - before > _LEAST_SHARE * seconds:
            return True
        stat = Path(f"/proc/self/task/{self._thread.native_id}/stat")
        return stat.read_bytes().rpartition(b")")[2].split()[0] != b"D"

    def _run(self) -> None:
        _thread.is_helper = True
        while (call := self._calls.get()) is not None:
            call.make()
            del call  # or it would live until the next one


class _Lease:
    """The helper of one thread, which it has until that thread ends, or leaves it behind.

    A helper has the processors of the thread that started it.
    """

    def __init__(self) -> None:
        self.helper = _Helper()

    def __del__(self) -> None:
        if hasattr(self, "helper"):
            self.helper.end()


class _LeftBehind:
    """The calls that have not returned."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: list[tuple[int, int, _Call[Any]]] = []
        """(process, its user, call) of each."""

    def __len__(self) -> int:
        return len(self._calls)

    def add(self, pid: int, call: _Call[Any], root: Path) -> bool:
        """Note a call, unless it has returned after all."""
        user = _user(pid, root)
        with self._lock:
            if not call.done.locked():
                return False
            self._calls.append((pid, user, call))
        return True

    def refuses(self, pid: int, root: Path) -> bool:
        """Return whether no call on that process may be tried now."""
        if not self._calls:
            return False
        user = _user(pid, root)
        with self._lock:
            self._calls = [each for each in self._calls if each[2].done.locked()]
            left = {each for each, its, _ in self._calls if its == user}
            return pid in left or len(left) >= _MOST_OF_A_USER

    def clear(self) -> None:
        self._lock = threading.Lock()  # a thread that has not been copied may hold the old one
        self._calls = []


def _user(pid: int, root: Path) -> int:
    """Return the process's real user; -1 if it has ended."""
    try:
        lines = (root / f"proc/{pid}/status").read_bytes().split(b"\n")
    except OSError:
        return -1
    return next((int(line.split()[1]) for line in lines if line.startswith(b"Uid:")), -1)


def _forget_threads() -> None:
    """Forget all threads in a forked child, which has none of them."""
    _thread.lease = None
    _left.clear()


_thread = threading.local()
_left = _LeftBehind()
os.register_at_fork(after_in_child=_forget_threads)
