"""What the C core offers. Addresses and sizes in bytes; every call releases the GIL."""

# A range: number of the process or of a thread of it; pidfd; descriptor of /proc/PID/task/TID/comm
# where it is a thread's number (else -1); descriptor of /proc/PID/pagemap; start; end; the page
# size of the mapping; the base page size; the size of a transparent huge page (0: none); whether
# to use PAGEMAP_SCAN; a descriptor of /proc/kpageflags (-1: none), which tells huge pages where
# there is no scan; and frame spans: rows of (start, end, node), of 64 bits each, ascending, for
# telling a page's node from its frame (empty: the kernel is asked).
_Range = tuple[int, int, int, int, int, int, int, int, int, bool, int, bytes]

def migrate_pages(pid: int, pidfd: int, task: int, from_mask: bytes, to_mask: bytes, /) -> int:
    """migrate_pages(2), unless the process (or thread, see _Range) has ended. OSError with the
    kernel's errno."""

def bind(tid: int, task: int, mask: bytes, /) -> bool:
    """sched_setaffinity(2), unless reading from `task`, a descriptor of /proc/PID/task/TID/comm,
    says that the thread has ended. False where it has by the end of the call. OSError with the
    kernel's errno; ESRCH where it had before."""

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
    int,
]:
    """Move the pages of a range; `destinations` is an array of int32, by node, -1 to leave alone;
    `only` of uint64: start and end of ascending extents outside of which pages stay (empty: none).

    Returns moved bytes by (old, new); failures (start, end, errno, bytes, page size); the number
    of calls; the longest call in ns; and the errno that ended the sweep early, 0 if none did
    (ESRCH: the process exited or replaced its address space).
    """

def locate(
    pid: int,
    pidfd: int,
    task: int,
    pagemap: int,
    start: int,
    end: int,
    page_size: int,
    base_size: int,
    folio_size: int,
    use_scan: bool,
    kpageflags: int,
    spans: bytes,
    /,
) -> list[tuple[int, int, int, int]]:
    """Runs (start, end, node, size of a page) of present pages. OSError with the kernel's errno."""

def can_scan(pagemap: int, /) -> bool:
    """Whether the PAGEMAP_SCAN ioctl works on this descriptor."""

def check_access(pid: int, /) -> None:
    """OSError where move_pages(2) does not let the caller ask for this process's pages."""

def may_move_shared() -> bool:
    """Whether the caller may use MPOL_MF_MOVE_ALL (CAP_SYS_NICE)."""

def shares_memory(pid: int, other: int, /) -> bool:
    """Whether two processes (or threads) have one address space, kcmp(2). OSError with the kernel's
    errno; ENOSYS on kernels without it (CONFIG_KCMP)."""
