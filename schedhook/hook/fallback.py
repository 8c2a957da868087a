"""What a hook does if no agent answers: write the event to the spool, or handle it here.

`delivery` imports this if it has to; like it, this imports built-in modules only.
"""

import _signal  # type: ignore[import-not-found]  # not in typeshed
import posix
import sys
import time

MOST_SPOOLED = 10_000
"""The limit of files in the spool; it is reached if no agent has run for long."""


class NotKept(Exception):
    """The spool has not taken the event."""


def write_spool(message: bytes, directory: str) -> str:
    """Write the message to the spool atomically, and return its path.

    It survives this process and the agent, but not always a power cut, which ends the jobs, too: a
    busy disk can take a second for fsync(2), and the job would wait for it.
    """
    name = f"{directory}/{time.time_ns():020d}-{posix.getpid()}"
    try:
        try:
            posix.mkdir(directory, 0o700)
            posix.chmod(directory, 0o700)  # the umask may have removed bits
        except FileExistsError:
            pass
        check_spool(directory)
        if len(posix.listdir(directory)) >= MOST_SPOOLED:
            raise NotKept(f"{directory} is full: it has {MOST_SPOOLED} events; start the agent")
        flags = posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_NOFOLLOW | posix.O_CLOEXEC
        handle = posix.open(name + ".tmp", flags, 0o600)
        try:
            left = memoryview(message)
            while left:
                left = left[posix.write(handle, left) :]
        except BaseException:
            posix.unlink(name + ".tmp")
            raise
        finally:
            posix.close(handle)
        posix.rename(name + ".tmp", name + ".event")
    except OSError as error:
        raise NotKept(f"{directory}: {error.strerror}") from None
    return name + ".event"


def check_spool(directory: str) -> None:
    """Raise NotKept unless the directory is this user's and no other user can write to it."""
    status = posix.lstat(directory)
    if status.st_mode & 0o170000 != 0o040000:
        raise NotKept(f"{directory} is not a directory")
    if status.st_uid != posix.geteuid() or status.st_mode & 0o022:
        raise NotKept(f"{directory} must belong to this user and be writable by no other user")


def handle_here(message: bytes) -> int:
    """Handle the event in a child process that loads all of schedhook; return its exit status.

    The caller limits the wait. The child has its own session and outlives this process, since
    schedulers kill a hook's whole process group. Raise OSError if there is no process to be had.
    """
    # If SIGCHLD is ignored, the kernel discards the child's exit status.
    _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
    handle = _open_unnamed()
    posix.write(handle, message)
    posix.lseek(handle, 0, 0)
    child = posix.fork()
    if child == 0:
        try:
            posix.setsid()
            _signal.setitimer(_signal.ITIMER_REAL, 0)
            posix.dup2(handle, 0)
            home = __file__.rsplit("/", 3)[0]
            program = (
                "import sys; sys.path.append(sys.argv[1]); import schedhook.agent.oneshot as it"
            )
            posix.execv(
                sys.executable,
                [sys.executable, "-I", "-c", f"{program}; sys.exit(it.main())", home],
            )
        finally:
            posix._exit(1)
    return posix.waitstatus_to_exitcode(posix.waitpid(child, 0)[1])


def _open_unnamed() -> int:
    """Return a descriptor of a file without a name, closed on exec.

    Builds of Python against an old C library have no memfd_create(2), and no hook loads the C core.
    """
    if hasattr(posix, "memfd_create"):
        return posix.memfd_create("schedhook-event")
    return posix.open("/tmp", posix.O_RDWR | posix.O_TMPFILE | posix.O_CLOEXEC, 0o600)
