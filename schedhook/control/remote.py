"""System calls run in the threads of another process, by ptrace(2).

The kernel lets a thread change its own memory policy only. So a thread is stopped, made to run
system calls, and let go with everything that it had: its registers, its signal mask, and the system
call that it was in. If this process is killed meanwhile, at any moment, the thread goes on all the
same: a signal frame in its memory restores it; see backends/native/remote.h.

A thread is traced by one thread of this process, and goes on by itself once that one has ended. So
each visit to a thread has a thread of its own, and an error only has to end it.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Self, TypeVar

from schedhook.backends.native import _core
from schedhook.control import scratch
from schedhook.control.restorers import Restorers, is_restorer
from schedhook.control.scratch import Scratch
from schedhook.control.threads import Thread, read_threads
from schedhook.host import cgroups
from schedhook.host.processes import is_exiting, open_memory
from schedhook.host.tracing import read_trace_status
from schedhook.values.errors import (
    NoPermissionError,
    ProcessGoneError,
    RefusedError,
    SchedhookError,
)

_T = TypeVar("_T")

_STOP_NS = 2_000_000_000
_CALL_NS = 5_000_000_000
_VISIT_SECONDS = 30.0
"""The most that a visit may take. It can wait for locks that the process holds."""
_TRIES = 5
"""Threads that may end one after the other before one of them has mapped the memory."""

_READ_WRITE, _PRIVATE_ANONYMOUS, _NO_FILE = 3, 0x22, (1 << 64) - 1
"""Arguments of mmap(2)."""

_REASONS = {
    errno.ETIMEDOUT: "it does not stop: it is frozen, or waits in the kernel (vfork, a disk)",
    errno.ENOEXEC: "it runs 32-bit code",
    errno.EOPNOTSUPP: "it has what a signal frame does not restore, such as a shadow stack",
    errno.EPROTO: "it did something else than it was made to do",
    errno.ENOSYS: "only x86-64 is supported",
}


class Visit:
    """A stopped thread that makes system calls."""

    def __init__(self, tid: int, restorer: int, memory: int, mapped: Scratch | None) -> None:
        self._tid = tid
        self._restorer = restorer
        self._memory = memory
        self._mapped = mapped

    @property
    def arguments(self) -> int:
        """The address of memory for what calls read and write, some kilobytes."""
        assert self._mapped is not None
        return self._mapped.arguments

    def call(self, name: str, *arguments: int) -> int:
        """Let the thread make a system call, and return its result, negative for an errno."""
        return _core.remote_make(self._tid, self._restorer, name, _CALL_NS, *arguments)

    def write(self, data: bytes, address: int | None = None) -> None:
        """Write whole words to the thread's memory, at `arguments` by default."""
        _core.remote_write(self._tid, self.arguments if address is None else address, data)

    def read(self, size: int) -> bytes:
        """Read the thread's memory at `arguments`."""
        return os.pread(self._memory, size, self.arguments)

    def has(self, mapped: Scratch) -> bool:
        """Return whether that scratch memory is in its address space."""
        return mapped.is_in(self._memory)

    def leave(self, state: bytes) -> None:
        """Restore the thread and let it go on."""
        _core.remote_leave(self._tid, state, _STOP_NS)


class _TooSlowError(RefusedError):
    """A visit takes longer than it may."""


class RemoteProcess:
    """A context manager for a process whose threads shall make system calls.

    During the block, some memory of ours is mapped into the process. Raise RefusedError, with the
    reason, if the process cannot be made to do this; ProcessGoneError if it has ended.
    """

    def __init__(self, pid: int, restorers: Restorers, root: Path = Path("/")) -> None:
        self._pid = pid
        self._root = root
        self._restorers = restorers
        self._restorer = 0
        self._scratch: Scratch | None = None
        self._frame_in_use = False
        """The frame has to restore a thread that did not come back from its visit."""
        self._abandoned = False
        """A visit takes too long, and may yet go on."""

    def __enter__(self) -> Self:
        if self._pid == os.getpid():
            raise RefusedError("it is this process")
        if cgroups.frozen(cgroups.cgroup_of(self._pid, self._root), self._root):
            raise RefusedError("its cgroup is frozen")
        for tries_left in reversed(range(_TRIES)):
            try:
                self._begin(self.first_thread())
                break
            except ProcessGoneError:  # perhaps only that thread has ended
                if not tries_left:
                    raise
        return self

    def _begin(self, thread: Thread) -> None:
        self._check(thread)
        self._restorer = _in_own_thread(lambda: self._find_restorer(thread))
        self._scratch = self.visit(thread, _map)

    def __exit__(self, *_: object) -> None:
        mapped = self._scratch
        assert mapped is not None
        if self._frame_in_use or self._abandoned:
            return  # the process keeps the memory
        self._scratch = None
        with suppress(SchedhookError):  # it also keeps it if this fails
            self.visit(self.first_thread(), lambda visit: _unmap(visit, mapped))

    def visit(self, thread: Thread, work: Callable[[Visit], _T]) -> _T:
        """Stop the thread, let it make the calls of `work`, and return what `work` returns.

        If `work` raises OSError, the thread is not restored here, but by the frame.
        """
        if self._frame_in_use or self._abandoned:
            raise RefusedError("one of its threads did not come back in time")
        try:
            return _in_own_thread(lambda: self._visit(thread, work))
        except _TooSlowError:
            self._abandoned = True
            raise

    def first_thread(self) -> Thread:
        """Return the process's first thread, or if that has ended, the next."""
        for thread in read_threads(self._pid, self._root):
            with suppress(ProcessGoneError):
                if not is_exiting(self._pid, self._root, thread.tid):
                    return thread
        raise ProcessGoneError(f"process {self._pid} has exited")

    def _find_restorer(self, thread: Thread) -> int:
        memory = self._open(thread)
        try:
            return self._restorers.find(self._pid, thread.tid, memory)
        finally:
            os.close(memory)

    def _open(self, thread: Thread) -> int:
        return open_memory(self._pid, thread.tid, self._root)

    def _check(self, thread: Thread) -> None:
        """Raise RefusedError if it is not safe to stop the thread."""
        status = read_trace_status(self._pid, thread.tid, self._root)
        if status.state in "ZX" or not thread.lives(self._root):
            raise ProcessGoneError(f"thread {thread.tid} has ended")
        if status.tracer not in (0, threading.get_native_id()):
            raise RefusedError(f"process {status.tracer} traces it, as a debugger does")
        if status.has_filter:
            raise RefusedError("a seccomp filter could kill it for the system call")

    def _visit(self, thread: Thread, work: Callable[[Visit], _T]) -> _T:
        self._check(thread)
        try:
            state, pointer = _core.remote_stop(thread.tid, _STOP_NS)
            # From now on the thread keeps its number and its program.
            self._check(thread)
            memory = self._open(thread)
            try:
                frame = self._choose_place(thread, memory, state, pointer)
                if self._abandoned:
                    raise RefusedError("its visit came too late")
                self._frame_in_use = True
                _core.remote_write(thread.tid, frame, _core.remote_frame(state, frame))
                _core.remote_enter(thread.tid, state, self._restorer, frame)
                visit = Visit(thread.tid, self._restorer, memory, self._scratch)
                try:
                    result = work(visit)
                except SchedhookError:
                    self._leave(visit, state)
                    raise
                self._leave(visit, state)
                return result
            finally:
                os.close(memory)
        except OSError as error:
            if error.errno == errno.ESRCH:
                self._frame_in_use = False
            raise _explain(error, thread) from error

    def _leave(self, visit: Visit, state: bytes) -> None:
        visit.leave(state)
        self._frame_in_use = False

    def _choose_place(self, thread: Thread, memory: int, state: bytes, pointer: int) -> int:
        """Return where the frame is to be. Raise ProcessGoneError if the program is another one."""
        mapped = self._scratch
        if not is_restorer(memory, self._restorer) or (mapped and not mapped.is_in(memory)):
            raise ProcessGoneError(f"process {self._pid} has become another program")
        if mapped is not None:
            return mapped.frame
        size = len(_core.remote_frame(state, 0))
        return scratch.place_on_stack(self._pid, thread.tid, pointer, size, self._root)


def _map(visit: Visit) -> Scratch:
    address = visit.call("mmap", 0, scratch.SIZE, _READ_WRITE, _PRIVATE_ANONYMOUS, _NO_FILE, 0)
    if address < 0:
        raise RefusedError(f"no memory can be mapped into it: {os.strerror(-address)}")
    mapped = Scratch.at(address)
    visit.write(mapped.token, address)
    return mapped


def _unmap(visit: Visit, mapped: Scratch) -> None:
    if visit.has(mapped):
        visit.call("munmap", mapped.address, scratch.SIZE)


def _explain(error: OSError, thread: Thread) -> SchedhookError:
    if error.errno == errno.ESRCH:
        return ProcessGoneError(f"thread {thread.tid} has ended")
    if error.errno in (errno.EPERM, errno.EACCES):
        return NoPermissionError(
            "ptrace(2) is not permitted: run as root or with CAP_SYS_PTRACE, and let no filter or"
            " security module deny it"
        )
    return RefusedError(_REASONS.get(error.errno or 0) or str(error.strerror))


def _in_own_thread(work: Callable[[], _T]) -> _T:
    """Return what `work` returns or raise what it raises, from a thread that then ends.

    Raise _TooSlowError if it takes too long; `work` then goes on all the same.
    """
    results: list[_T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:  # noqa: BLE001 - raised again below
            errors.append(error)

    visitor = threading.Thread(target=run, name="schedhook-visit", daemon=True)
    visitor.start()
    visitor.join(_VISIT_SECONDS)
    if errors:
        raise errors[0]
    if not results:
        raise _TooSlowError("its memory cannot be read: the process may hold its own memory's lock")
    return results[0]
