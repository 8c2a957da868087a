"""The errors, one class for each kind that a caller may need to distinguish.

Every message is one line: what failed, why, and what to do. The command line prints it unchanged
and exits with `exit_status`.
"""

from __future__ import annotations

import errno

PLUGIN_ERRORS = (Exception, SystemExit)
"""The exceptions to catch around a plug-in's code. One that calls sys.exit() must not end this
process."""


class SchedhookError(Exception):
    """Base of every error that schedhook raises on purpose."""

    exit_status = 1


class UsageError(SchedhookError):
    """The request itself is wrong: a bad node list, an unknown name, a node that is offline."""

    exit_status = 2


class ConfigError(UsageError):
    """A configuration file cannot be used; the message names the file and the key."""


class PluginError(UsageError):
    """A plug-in that was asked for is missing, ambiguous or broken."""


class RefusedError(SchedhookError):
    """Nothing was moved, on purpose: it does not fit, is not allowed, or cannot be expressed."""

    exit_status = 4


class MigrationRefused(RefusedError):
    """An observer's `schedhook_before_migrate` raises this to prevent a relocation."""


class NoPermissionError(RefusedError):
    """A capability or ptrace permission is missing."""


class KernelThreadError(UsageError):
    """The process is a kernel thread, which has no memory of its own."""


class ProcessGoneError(SchedhookError):
    """The process has exited, or its number now belongs to another process."""


class NotAnsweringError(ProcessGoneError):
    """The lock of the process's memory is held, so that no call on that memory returns.

    A relocation leaves the process out as one that has exited, and the report says why.
    """


class BackendError(SchedhookError):
    """A whole call failed for a reason that a retry does not resolve.

    `errno` is the kernel's number, 0 if there is none.
    """

    def __init__(self, message: str, number: int = 0) -> None:
        super().__init__(message)
        self.errno = number


def from_errno(number: int, pid: int, call: str) -> SchedhookError:
    """Return the error for a whole call that failed with errno `number` on process `pid`.

    The meanings are those of migrate_pages(2) and move_pages(2).
    """
    name = errno.errorcode.get(number, str(number))
    if number == errno.ESRCH:
        return ProcessGoneError(f"process {pid} has exited")
    if number == errno.EPERM:
        return NoPermissionError(
            f"{call} on process {pid}: not permitted; run as root, or with CAP_SYS_NICE and"
            " CAP_SYS_PTRACE, and not confined by a security module"
        )
    meaning = {
        errno.EACCES: "a destination node is outside the process's cpuset; widen its cpuset.mems",
        errno.ENODEV: "a destination node is not online or has no memory",
        errno.EINVAL: "no destination node is both online and allowed to the caller's own cpuset",
        errno.ENOMEM: "a destination node is full",
        errno.EFAULT: "the kernel could not read the request",
        errno.ENOSYS: "this kernel has no page migration (CONFIG_MIGRATION, CONFIG_NUMA)",
    }.get(number, "unexpected error")
    return BackendError(f"{call} on process {pid}: {name}: {meaning}", number)
