"""A process held so that a system call does not reach another process that has got its number.

The system calls take a number, not a pidfd. So the pidfd is polled before each call and again after
it: the result of a call counts only if the process had not exited by then. No other process has the
number until then, so what /proc shows under it is the process's own. The pagemap belongs to
the address space and reads as empty once that is gone.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from schedhook.backends.native import _core
from schedhook.backends.native.access import attach_error, check_proc, has_exited, open_pidfd
from schedhook.host import processes
from schedhook.host.bounded import SECONDS, call_bounded
from schedhook.values.errors import NotAnsweringError, ProcessGoneError

_T = TypeVar("_T")

_MOVE_SECONDS = 60.0
"""For so long a call that moves pages may wait: a disk can be slow."""
_CHECK_SECONDS = 0.05
"""The interval between checks of the cgroup and of the lock: a process can have hundreds of small
areas."""


class HeldProcess:
    """A process with its pidfd, its open cgroup file and its open pagemap.

    Raise what `open_pidfd`, `check_proc` and `attach_error` describe if it cannot be held.
    """

    def __init__(self, pid: int, root: Path) -> None:
        self.pid = pid
        self._root = root
        self._checked = self._answered = -math.inf
        self.mistaken: str | None = None
        """A sentence for the report if a call may have reached another process."""
        self.no_answer: str | None = None
        """Why a call on the process's memory was given up; None if none was."""
        self._lock = threading.Lock()
        self._calls = 0
        """Calls that use the descriptors now."""
        self._is_closed = False
        self._others: list[int] = []
        self.pagemap = self.comm = self._cgroup_file = -1
        self.pidfd = open_pidfd(pid, root)
        try:
            check_proc(pid, self.pidfd, root)
            self.command = processes.read_command(pid, root)
            # If the first thread has ended and others run on, the calls need one of those.
            self.task = processes.live_task(pid, root)
            # A thread that has ended does not follow the others into another cgroup.
            self._cgroup_file, self._cgroup = processes.open_cgroup(pid, self.task, root)
            if self.task != pid:
                self.comm = processes.open_task(pid, self.task, root)
            stat = processes.read_stat(pid, root, self.task)
            self._task_started, self._stack = stat.start_time, stat.stack_start
            try:
                pagemap = root / f"proc/{pid}/task/{self.task}/pagemap"
                self.pagemap = os.open(pagemap, os.O_RDONLY | os.O_CLOEXEC)
                _core.check_access(self.task)
            except OSError as error:
                raise attach_error(pid, error.errno or 0, root) from error
            if not self.alive():
                raise self.gone()
        except BaseException:
            self.close()
            raise

    def alive(self) -> bool:
        """Return whether the process has not exited, and is in the cgroup of its attachment."""
        if self.pidfd < 0:
            return False
        try:
            most = len(self._cgroup) + 1
            found = processes.read_cgroup(self.pid, self._cgroup_file, most, self._root)
        except ProcessGoneError:
            if self.task == self.pid:
                return False
            found = self._cgroup  # that thread has ended, and others may run on
        return found == self._cgroup and not has_exited(self.pidfd)

    def require_alive(self) -> None:
        """Raise ProcessGoneError unless the process is `alive`."""
        self._checked = time.monotonic()
        if not self.alive():
            raise self.gone()

    def require_running(self) -> None:
        """Raise ProcessGoneError if the process has exited; check its cgroup only now and then."""
        if has_exited(self.pidfd) or time.monotonic() - self._checked > _CHECK_SECONDS:
            self.require_alive()

    def gone(self) -> ProcessGoneError:
        """Return the error for a process that has exited."""
        return ProcessGoneError(f"process {self.pid} has exited")

    def has_other_memory(self) -> bool:
        """Return whether the process has become another program, execve(2).

        If it ran in its parent's memory, its old address space lives on, and only the place of the
        new one's stack shows it.
        """
        if not self.call(self.read_entry):
            return True
        stack = processes.read_stat(self.pid, self._root, self.task).stack_start
        return stack not in (0, self._stack)

    def is_exiting(self) -> bool:
        """Return whether the process has begun to exit.

        It can have lost its memory, so that calls fail with EINVAL, before it counts as exited.
        """
        try:
            exiting = processes.is_exiting(self.pid, self._root, self.task)
        except ProcessGoneError:
            return True
        # Asked last: what was just read can be about another process that has got the number.
        return exiting or self._exited()

    def exited_in_a_call(self) -> bool:
        """Return whether the process exited during the call that was just made.

        Set `mistaken` if another process has got the number: the call may have reached that one.
        """
        if not self._exited():
            return False
        with suppress(ProcessGoneError):
            if processes.read_start_time(self.task, self._root) != self._task_started:
                self.mistaken = (
                    f"process {self.pid} exited while its pages were being moved, and another"
                    " process has got its number: some of that process's pages may have moved"
                    " instead"
                )
        return True

    def call(self, act: Callable[[], _T], *, seconds: float = SECONDS) -> _T:
        """Return what `act` returns, which waits for the lock of the process's memory.

        Raise NotAnsweringError as `call_bounded` does. The descriptors then stay open until `act`
        has returned.
        """
        with self.noting_no_answer():
            return call_bounded(self.pid, lambda: self._count(act), self._root, seconds=seconds)

    @contextmanager
    def noting_no_answer(self) -> Iterator[None]:
        """Set `no_answer` if the block raises NotAnsweringError."""
        try:
            yield
        except NotAnsweringError as error:
            self.no_answer = str(error)
            raise

    def move(self, act: Callable[[], _T]) -> _T:
        """Return what `act` returns, which moves pages, and may wait for a disk to write them.

        Raise what `call` raises. The lock is waited for before that, in a call that lets this
        program end, as move_pages(2) and migrate_pages(2) do not.
        """
        if time.monotonic() - self._answered > _CHECK_SECONDS:
            self.call(self.read_entry)
            self._answered = time.monotonic()
        return self.call(act, seconds=_MOVE_SECONDS)

    def read_entry(self) -> bytes:
        """Return the first entry of the pagemap; nothing if the address space has ended."""
        return processes.read_first_entry(self.pagemap)

    def keep(self, descriptor: int) -> int:
        """Return the descriptor, which is now closed together with the others."""
        self._others.append(descriptor)
        return descriptor

    def close(self) -> None:
        """Close the descriptors once no call uses them; closing twice is harmless."""
        with self._lock:
            self._is_closed = True
            if not self._calls:
                self._close_all()

    def _count(self, act: Callable[[], _T]) -> _T:
        with self._lock:
            if self._is_closed:  # the caller was interrupted before another thread began
                raise self.gone()
            self._calls += 1
        try:
            return act()
        finally:
            with self._lock:
                self._calls -= 1
                if self._is_closed and not self._calls:
                    self._close_all()

    def _close_all(self) -> None:
        own = self.comm, self._cgroup_file, self.pagemap, self.pidfd
        for descriptor in (*own, *self._others):
            if descriptor >= 0:
                os.close(descriptor)
        self.comm = self._cgroup_file = self.pagemap = self.pidfd = -1
        self._others = []

    def _exited(self) -> bool:
        """Return whether another process can have got the number that the calls use."""
        if has_exited(self.pidfd):
            return True
        try:
            return self.comm >= 0 and not os.pread(self.comm, 1, 0)
        except ProcessLookupError:
            return True
