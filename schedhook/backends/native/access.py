"""Access to a process: its pidfd, its files in /proc, and why the kernel denies access.

Nothing has moved when one of these checks fails, so every denial is a RefusedError.
"""

from __future__ import annotations

import errno
import os
import select
from collections.abc import Callable, Iterator
from pathlib import Path

from schedhook.backends.native import _core
from schedhook.backends.native.descriptors import pidfd_open
from schedhook.host.processes import is_kernel_thread
from schedhook.host.rlimits import is_near_file_limit, raise_file_limit
from schedhook.values.errors import (
    BackendError,
    KernelThreadError,
    NoPermissionError,
    ProcessGoneError,
    RefusedError,
    SchedhookError,
    from_errno,
)

_DENIED = (errno.EPERM, errno.EACCES, errno.ENOSYS)
_NO_PROCESS = (errno.ESRCH, errno.EINVAL, errno.ENOENT)
"""No process has the number, or a thread has it: EINVAL on Linux 6.12, ENOENT on 7.3.

See pidfd_open(2).
"""
_SPARE = 16
"""Descriptors that must remain available while a process is held."""
_FILTERED = "2"
"""The value of Seccomp in /proc/PID/status if a filter is active; seccomp(2)."""


def open_pidfd(pid: int, root: Path = Path("/")) -> int:
    """Return a pidfd of the process. Raise ProcessGoneError if no process has the number."""
    try:
        return _open_with_room(pid)
    except OverflowError as error:
        raise ProcessGoneError(f"no process {pid} on this host") from error
    except OSError as error:
        if error.errno in _NO_PROCESS:
            raise ProcessGoneError(f"no process {pid} on this host") from error
        if error.errno in _DENIED:
            raise _denied("pidfd_open(2)", error.errno, root) from error
        raise attach_error(pid, error.errno or 0, root) from error


def has_exited(pidfd: int) -> bool:
    """Return whether the pidfd's process has exited; pidfd_open(2)."""
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    return bool(poller.poll(0))


def check_proc(pid: int, pidfd: int, root: Path) -> None:
    """Raise RefusedError unless a number means the same process in /proc as in system calls.

    It does not if /proc belongs to another pid namespace, as in a container that mounts the host's
    /proc. The pidfd's Pid in /proc/self/fdinfo is the number by which /proc knows the process;
    proc(5).
    """
    proc = root / "proc"
    try:
        lines = (proc / f"self/fdinfo/{pidfd}").read_text().splitlines()
    except OSError as error:
        raise RefusedError(
            f"{proc} is not mounted, or belongs to another pid namespace: mount the /proc of this"
            " pid namespace"
        ) from error
    known_as = next((line.split()[1] for line in lines if line.startswith("Pid:")), "")
    if known_as == "-1":
        raise ProcessGoneError(f"process {pid} has exited")
    if known_as != str(pid):
        raise RefusedError(
            f"{proc} belongs to another pid namespace, in which {pid} is another process: mount"
            " the /proc of this pid namespace, or run schedhook outside the container"
        )
    if not (proc / str(pid)).exists() and not has_exited(pidfd):
        raise NoPermissionError(
            f"process {pid}: not permitted; {proc} hides it (hidepid): run as root, or as a member"
            " of the group that the mount option gid= names"
        )


def attach_error(pid: int, number: int, root: Path) -> SchedhookError:
    """Return the error for a first access to a process that failed with errno `number`."""
    if number in _DENIED:
        # Opening /proc/PID/pagemap fails with EACCES where move_pages(2) fails with EPERM.
        return denial(root) or from_errno(
            errno.EPERM if number == errno.EACCES else number, pid, "move_pages"
        )
    if number in (errno.EMFILE, errno.ENFILE):
        return RefusedError(
            f"process {pid}: no file descriptor left; each process needs four or five: raise the"
            " limit (ulimit -n, LimitNOFILE=)"
        )
    # If a process has no address space, move_pages(2) fails with EINVAL, and opening its pagemap
    # fails with ESRCH on newer kernels.
    if number in (errno.EINVAL, errno.ESRCH, errno.ENOENT):
        if is_kernel_thread(pid, root):
            return KernelThreadError(
                f"process {pid} is a kernel thread, which has no memory of its own"
            )
        return ProcessGoneError(f"process {pid} has exited")
    return BackendError(f"process {pid}: {os.strerror(number)}", number)


def denial(root: Path = Path("/")) -> RefusedError | None:
    """Return why the caller may not even query its own pages; None if it may."""
    return _try("move_pages(2)", lambda: _core.check_access(os.getpid()), root)


def probe(root: Path = Path("/")) -> Iterator[tuple[str, SchedhookError | None]]:
    """Try on this process what a relocation needs of the kernel and of /proc.

    Yield the name of each with the error if it does not work (`what: remedy`), else with None.
    """
    me = os.getpid()
    yield "move_pages", denial(root)
    nowhere = bytes(8)  # the kernel rejects it as invalid after it has checked the permission
    yield (
        "migrate_pages",
        _try("migrate_pages(2)", lambda: _core.migrate_pages(me, -1, -1, nowhere, nowhere), root),
    )
    try:
        pidfd = open_pidfd(me, root)
    except SchedhookError as error:
        yield "pidfd_open", error
        return
    try:
        yield "pidfd_open", None
        check_proc(me, pidfd, root)
        yield "/proc", None
    except SchedhookError as error:
        yield "/proc", error
    finally:
        os.close(pidfd)


def _try(call: str, act: Callable[[], object], root: Path) -> RefusedError | None:
    try:
        act()
    except OSError as error:
        if error.errno in _DENIED:
            return _denied(call, error.errno, root)
    return None


def _denied(call: str, number: int, root: Path) -> RefusedError:
    """Return why a call that needs no privilege is denied."""
    name = errno.errorcode[number]
    if _is_filtered(root):
        return RefusedError(
            f"a seccomp filter denies {call} to this process ({name}): run schedhook outside the"
            " container, or let the filter allow move_pages, migrate_pages and pidfd_open"
        )
    if number == errno.ENOSYS:
        return RefusedError(
            f"this kernel has no {call}: use Linux 5.3 or later with CONFIG_NUMA and"
            " CONFIG_MIGRATION"
        )
    return RefusedError(
        f"a security module denies {call} to this process even on itself ({name}): change its"
        " policy for schedhook"
    )


def _is_filtered(root: Path) -> bool:
    try:
        text = (root / "proc/self/status").read_text()
    except OSError:
        return False
    return text.partition("\nSeccomp:")[2].split("\n", 1)[0].strip() == _FILTERED


def _open_with_room(pid: int) -> int:
    """Return a pidfd, and make sure that the process's files can be opened as well.

    Raise the soft limit on open files if it is too low; fail with EMFILE if the hard limit is.
    """
    try:
        pidfd = pidfd_open(pid)
    except OSError as error:
        if error.errno != errno.EMFILE or not raise_file_limit():
            raise
        pidfd = pidfd_open(pid)
    if is_near_file_limit(pidfd, _SPARE) and not raise_file_limit():
        os.close(pidfd)
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    return pidfd
