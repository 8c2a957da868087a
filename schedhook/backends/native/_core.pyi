"""The C core: parse, call the kernel, return.

Addresses and sizes are in bytes; every call releases the GIL. Errors are OSError with the kernel's
errno.
"""

# A range of a process's pages:
#   int    number of the process, or of a thread of it
#   int    pidfd
#   int    descriptor of /proc/PID/task/TID/comm if the number is a thread's, else -1
#   int    descriptor of /proc/PID/pagemap
#   int    start
#   int    end
#   int    page size of the mapping
#   int    size of a base page
#   int    size of a transparent huge page, 0 if there are none
#   bool   whether to use PAGEMAP_SCAN
#   int    descriptor of /proc/kpageflags, which tells folios if pagemap shows frames, or -1
#   int    frame of the zero page, 0 if pagemap shows none
#   bytes  frame spans: rows of (start, end, node) of 64 bits each, ascending. A page's node follows
#          from its frame's number; with no rows the kernel is asked.
_Range = tuple[int, int, int, int, int, int, int, int, int, bool, int, int, bytes]

def migrate_pages(pid: int, pidfd: int, task: int, from_mask: bytes, to_mask: bytes, /) -> int:
    """Move the memory of a process to other nodes, unless the process has ended.

    This is migrate_pages(2). Return its count of folios that did not move. The masks are of one
    size, in whole longs. Fail with ESRCH if the process (or thread, see _Range) has ended.
    """

def pidfd_open(pid: int, /) -> int:
    """Return a descriptor of the process, closed on exec.

    This is pidfd_open(2).
    """

def memfd_create(name: str, flags: int, /) -> int:
    """Return a descriptor of a new file in memory.

    This is memfd_create(2).
    """

def bind(tid: int, task: int, mask: bytes, /) -> bool:
    """Let a thread use only these processors, unless it has ended; sched_setaffinity(2).

    `task` is a descriptor of /proc/PID/task/TID/comm, which is unreadable once the thread has
    ended. Return False if it ended during the call; fail with ESRCH if it had ended before.
    """

def sweep(
    pages: _Range,
    destinations: bytes,
    only: bytes,
    shared: bool,
    batch_bytes: int,
    call_ns: int,
    /,
) -> tuple[
    list[tuple[tuple[int, int], int]],
    list[tuple[int, int, int, int, int]],
    int,
    int,
]:
    """Move the pages of a range by move_pages(2).

    `destinations` is an array of int32 by node, -1 to leave a node's pages alone. `only` is an
    array of uint64: start and end of ascending extents, outside of which pages stay; empty: no
    restriction. `shared`: use MPOL_MF_MOVE_ALL. `call_ns`: limit on one call's duration, 0: none.

    Return moved bytes by (old node, new node); failures as (start, end, errno, bytes, page size);
    the number of calls; and the errno that ended the sweep early, 0 if none did. ESRCH means that
    the process exited or replaced its address space.
    """

def locate(*pages: *_Range) -> list[tuple[int, int, int, int, bool]]:
    """Return runs (start, end, node, page size, hidden) of present pages of a range.

    Hidden pages are those that move_pages(2) does not find; without frame spans they are left out.
    """

def boundary(*pages: *_Range) -> int:
    """Return the end of the folio that the start of a range cuts off from the page before it.

    It is the start itself if no folio is cut, and 0 if that cannot be told. The page before the
    start must be of the same mapping.
    """

class _Frames: ...

def zero_frame(pagemap: int, /) -> int:
    """Return the frame of the zero page; 0 if the caller may not see frames (CAP_SYS_ADMIN).

    `pagemap` is a descriptor of the caller's own /proc/self/pagemap.
    """

def frames() -> _Frames:
    """Return an empty set of page frames, for `survey`."""

def survey(
    pages: _Range, frames: _Frames | None, part: int, /
) -> tuple[list[tuple[int, int]], bytes | None]:
    """Count the present pages of a range by node, except those whose frame is in `frames`.

    Add the frames of the others. `part`: 0 all pages, 1 the copies of a private mapping of a file,
    2 the pages of the file. Return (node, bytes), and the ascending extents, as `sweep` takes them,
    of the pages that were counted, or None if these are all that are present.
    """

def can_scan(pagemap: int, /) -> bool:
    """Return whether the PAGEMAP_SCAN ioctl works on this descriptor."""

def check_access(pid: int, /) -> None:
    """Raise OSError if move_pages(2) does not let the caller query this process's pages."""

def may_move_shared() -> bool:
    """Return whether the caller may use MPOL_MF_MOVE_ALL (CAP_SYS_NICE)."""

def shares_memory(pid: int, other: int, /) -> bool:
    """Return whether two processes (or threads) have the same address space, kcmp(2).

    Fail with ENOSYS on kernels without CONFIG_KCMP.
    """

def open_window(
    file: int,
    pagemap: int,
    offset: int,
    size: int,
    page_size: int,
    base_size: int,
    unwritten: bool,
    /,
) -> int:
    """Map the pages of a shared-memory object that exist and that no address space maps.

    Return the address in this process. `file` is the object, open for reading; `pagemap` is
    /proc/self/pagemap. The part [offset, offset + size) consists of whole pages. Holes stay holes,
    and pages in swap stay there. `unwritten`: also map pages that fallocate(2) allocated and
    no process has used yet; the kernel then clears them, so that they count as data for lseek(2).

    Fail with ENOSYS or EINVAL if the kernel cannot do that (userfaultfd(2), Linux 5.14), and with
    EPERM if a seccomp filter forbids it.
    """

def close_window(address: int, size: int, /) -> None:
    """Unmap what `open_window` mapped."""

def identify(fd: int, /) -> tuple[int, int, int, int]:
    """Return device (major, minor), inode and mode of a file, also of an O_PATH descriptor.

    Unlike os.stat this never asks a file system's server, which may not answer; statx(2).
    """

def file_system(fd: int, /) -> tuple[int, int]:
    """Return the type of a file's file system (a magic number) and its block size; fstatfs(2)."""

# System calls in another process's thread, by ptrace(2); remote.h explains how. All calls that
# concern one thread come from one thread of the caller. If one fails, that thread must end: the
# other one then goes on with what it had. Errors are OSError:
#   ESRCH       the thread has ended
#   EPERM       it may not be traced, or another process traces it
#   ETIMEDOUT   it did not stop in time
#   ENOEXEC     it is in 32-bit code
#   EOPNOTSUPP  it has a shadow stack, its system calls are dispatched to user space, or its state
#               is too large
#   EPROTO      it did something else than it was sent to do
#   ENOSYS      not implemented for this architecture

def remote_stop(tid: int, wait_ns: int, /) -> tuple[bytes, int]:
    """Stop a thread; PTRACE_SEIZE and PTRACE_INTERRUPT.

    Return with what it is to go on, for the functions below, and its stack pointer. A system call
    that waits without a time limit goes on, too, although the kernel ends some with EINTR after a
    stop, signal(7); a signal that comes meanwhile ends them.
    """

def open_watch() -> int:
    """Return a descriptor for `watch_writes` that does not block; inotify_init1(2)."""

def watch_writes(watch: int, path: bytes, /) -> int:
    """Watch for writes to a file, and return the number of the watch; inotify(7)."""

def remote_frame(thread: bytes, address: int, /) -> bytes:
    """Return the signal frame that restores the thread, for that address in its memory.

    The address is a multiple of 64.
    """

def remote_write(tid: int, address: int, data: bytes, /) -> None:
    """Write whole words, of 8 bytes, to the memory of a stopped thread."""

def remote_enter(tid: int, thread: bytes, restorer: int, frame: int, /) -> None:
    """Let a stopped thread make the calls that follow.

    `restorer`: the address of code as in `remote_restorers`; `frame`: that of its signal frame,
    with a page of stack below it.
    """

def remote_make(tid: int, restorer: int, name: str, wait_ns: int, /, *arguments: int) -> int:
    """Make a system call in the thread, and return its result, negative for an errno.

    `name` is mmap, munmap, mbind, get_mempolicy or set_mempolicy.
    """

def remote_leave(tid: int, thread: bytes, wait_ns: int, /) -> None:
    """Restore a thread for which `remote_enter` was called, and let it go on."""

def remote_restorers() -> list[bytes]:
    """Return the code by which programs end signal handlers, in each form, rt_sigreturn(2).

    It is empty if this architecture is not supported.
    """
