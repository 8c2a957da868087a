"""The way to a process: its pidfd, its files in /proc, and why the kernel keeps us from it.

Nothing has moved when one of these says no, so every denial is a RefusedError.
"""

from __future__ import annotations

import errno
import os
import select
from collections.abc import Callable, Iterator
from pathlib import Path

from schedhook.backends.native import _core
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
_SPARE = 16
"""Descriptors to be had beside those of a process that is held."""
_FILTERED = "2"
"""The mode of seccomp(2) in which a filter decides, as /proc/PID/status has it."""


def open_pidfd(pid: int, root: Path = Path("/")) -> int:
    """A pidfd of the process. ProcessGoneError where the number is no process's."""
    try:
        return _open_with_room(pid)
    except OverflowError as error:
        raise ProcessGoneError(f"no process {pid} on this host") from error
    except OSError as error:
        if error.errno in (errno.ESRCH, errno.EINVAL):  # EINVAL: a thread's number, or none
            raise ProcessGoneError(f"no process {pid} on this host") from error
        if error.errno in _DENIED:
            raise _denied("pidfd_open(2)", error.errno, root) from error
        raise attach_error(pid, error.errno or 0, root) from error


def has_exited(pidfd: int) -> bool:
    """Whether the pidfd's process has; pidfd_open(2)."""
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    return bool(poller.poll(0))


def check_proc(pid: int, pidfd: int, root: Path) -> None:
    """RefusedError unless /proc means the same process by this number as system calls do.

    They differ where /proc is that of another pid namespace, as in a container with the host's.
    The pidfd's Pid in /proc/self/fdinfo is the number by which /proc knows the process; proc(5).
    """
    proc = root / "proc"
    try:
        lines = (proc / f"self/fdinfo/{pidfd}").read_text().splitlines()
    except OSError as error:
        raise RefusedError(
            f"{proc} is not mounted, or is that of another pid namespace: mount that of this one"
        ) from error
    known_as = next((line.split()[1] for line in lines if line.startswith("Pid:")), "")
    if known_as == "-1":
        raise ProcessGoneError(f"process {pid} has exited")
    if known_as != str(pid):
        raise RefusedError(
            f"{proc} is that of another pid namespace, in which {pid} is another process: mount"
            " that of this one, or run schedhook outside"
        )
    if not (proc / str(pid)).exists() and not has_exited(pidfd):
        raise NoPermissionError(
            f"process {pid}: not permitted; {proc} hides it (hidepid): run as root, or in the"
            " group that /proc is mounted for"
        )


def attach_error(pid: int, number: int, root: Path) -> SchedhookError:
    """What it means that the first look at a process failed with errno `number`."""
    if number in _DENIED:
        # Opening /proc/PID/pagemap says EACCES where move_pages(2) says EPERM.
        return denial(root) or from_errno(
            errno.EPERM if number == errno.EACCES else number, pid, "move_pages"
        )
    if number in (errno.EMFILE, errno.ENFILE):
        return RefusedError(
            f"process {pid}: no file descriptor left to hold it, two or three are needed for each;"
            " raise the limit (ulimit -n, LimitNOFILE=)"
        )
    # Of a process without an address space move_pages(2) says EINVAL, and opening its pagemap
    # ESRCH on newer kernels.
    if number in (errno.EINVAL, errno.ESRCH, errno.ENOENT):
        if is_kernel_thread(pid, root):
            return KernelThreadError(
                f"process {pid} is a kernel thread, which has no memory of its own"
            )
        return ProcessGoneError(f"process {pid} has exited")
    return BackendError(f"process {pid}: {os.strerror(number)}", number)


def denial(root: Path = Path("/")) -> RefusedError | None:
    """Why the caller may not even ask for its own pages; None where it may."""
    return _try("move_pages(2)", lambda: _core.check_access(os.getpid()), root)


def probe(root: Path = Path("/")) -> Iterator[tuple[str, SchedhookError | None]]:
    """What a relocation needs of the kernel and of /proc, tried on this process itself; each with
    why it does not work, in the form `what: remedy`."""
    me = os.getpid()
    yield "move_pages", denial(root)
    nowhere = bytes(8)  # which the kernel finds invalid, once it has looked at the right
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
    """What keeps the caller from a call that needs no right."""
    name = errno.errorcode[number]
    if _is_filtered(root):
        return RefusedError(
            f"a seccomp filter denies {call} to this process ({name}): run schedhook outside of"
            " the container, or let the filter pass move_pages, migrate_pages and pidfd_open"
        )
    if number == errno.ENOSYS:
        return RefusedError(
            f"this kernel has no {call}: Linux 5.3 with CONFIG_NUMA and CONFIG_MIGRATION has"
        )
    return RefusedError(
        f"a security module denies {call} to this process even for itself ({name}): change its"
        " policy for schedhook"
    )


def _is_filtered(root: Path) -> bool:
    try:
        text = (root / "proc/self/status").read_text()
    except OSError:
        return False
    return text.partition("\nSeccomp:")[2].split("\n", 1)[0].strip() == _FILTERED


def _open_with_room(pid: int) -> int:
    """A pidfd, where the files that are read of the process can be opened as well. The soft limit
    is raised where it is in the way; EMFILE where the hard one is."""
    try:
        pidfd = os.pidfd_open(pid)
    except OSError as error:
        if error.errno != errno.EMFILE or not raise_file_limit():
            raise
        pidfd = os.pidfd_open(pid)
    if is_near_file_limit(pidfd, _SPARE) and not raise_file_limit():
        os.close(pidfd)
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    return pidfd
