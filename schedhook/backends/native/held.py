"""A process held so that a system call does not reach another process that has got its number.

The system calls take a number, not a pidfd. So the pidfd is polled before each call and again after
it: the result of a call counts only if the process had not exited by then. The pagemap belongs to
the address space and reads as empty once that is gone.
"""

from __future__ import annotations

import math
import os
import time
from contextlib import suppress
from pathlib import Path

from schedhook.backends.native import _core
from schedhook.backends.native.access import attach_error, check_proc, has_exited, open_pidfd
from schedhook.host import cgroups, processes
from schedhook.values.errors import ProcessGoneError

_ENTRY = 8
"""Bytes per page in pagemap; it reads as empty once the address space is gone."""
_CHECK_SECONDS = 0.05
"""The interval between checks of the cgroup: a process can have hundreds of small areas."""


class HeldProcess:
    """A process with its pidfd, its start time, its cgroup and its open pagemap.

    Raise what `open_pidfd`, `check_proc` and `attach_error` describe if it cannot be held.
    """

    def __init__(self, pid: int, root: Path) -> None:
        self._root = root
        self._checked = -math.inf
        self.mistaken: str | None = None
        """A sentence for the report if a call may have reached another process."""
        self.pagemap = self.comm = -1
        self.pidfd = open_pidfd(pid, root)
        try:
            check_proc(pid, self.pidfd, root)
            self._identity = processes.read_identity(pid, root)
            self._cgroup = cgroups.memberships(pid, root)
            self.command = processes.read_command(pid, root)
            # If the first thread has ended and others run on, the calls need one of those.
            self.task = processes.live_task(pid, root)
            self._task_started = processes.read_start_time(pid, root, self.task)
            if self.task != pid:
                self.comm = processes.open_task(pid, self.task, root)
            try:
                self._stack = processes.read_stack_start(pid, root, self.task)
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

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._identity.pid

    def alive(self) -> bool:
        """Return whether this is still the process that was attached, in the same cgroup."""
        if self.pidfd < 0 or has_exited(self.pidfd):
            return False
        try:
            return (
                processes.read_identity(self.pid, self._root) == self._identity
                and cgroups.memberships(self.pid, self._root) == self._cgroup
            )
        except ProcessGoneError:
            return False

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
        if not os.pread(self.pagemap, _ENTRY, 0):
            return True
        stack = processes.read_stack_start(self.pid, self._root, self.task)
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
            if processes.read_identity(self.task, self._root).start_time != self._task_started:
                self.mistaken = (
                    f"process {self.pid} exited while its pages were being moved, and another"
                    " process has got its number: some of that process's pages may have moved"
                    " instead"
                )
        return True

    def close(self) -> None:
        """Close the descriptors; closing twice is harmless."""
        for descriptor in (self.comm, self.pagemap, self.pidfd):
            if descriptor >= 0:
                os.close(descriptor)
        self.comm = self.pagemap = self.pidfd = -1

    def _exited(self) -> bool:
        """Return whether another process can have got the number that the calls use."""
        if has_exited(self.pidfd):
            return True
        try:
            return self.comm >= 0 and not os.pread(self.comm, 1, 0)
        except ProcessLookupError:
            return True
