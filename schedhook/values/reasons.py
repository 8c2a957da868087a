"""Why pages stay: what a report says of each byte that did not move."""

from __future__ import annotations

import errno
from enum import StrEnum


class Reason(StrEnum):
    """Why a page did not move; the keys of a report's `left_by_reason`."""

    BUSY = "EBUSY"
    """In use at the moment, or pinned (RDMA, io_uring): not isolated, or not migrated."""
    NO_MEMORY = "ENOMEM"
    """No free page of its size on the destination node."""
    SHARED = "shared"
    """Other processes map it, and moving shared pages was not permitted or requested (EACCES)."""
    ELSEWHERE = "elsewhere"
    """A strategy chose a node for it, but it was found on another one: moved or allocated there."""
    HIDDEN = "hidden"
    """In memory, but move_pages(2) does not find it; see schedhook.migration.unreachable."""
    UNMAPPED = "unmapped"
    """Of a shared-memory object, mapped by no process: the caller or the kernel cannot reach it."""
    APPEARED = "appeared"
    """The job allocated it on a source node after the move had passed that address."""
    SKIPPED = "skipped"
    """The strategy decided to leave it."""
    RESERVE = "reserve"
    """It would have filled the node into the reserve, or what others alone are entitled to."""
    ABORTED = "aborted"
    """An error ended the relocation before the page was tried."""
    UNEXPLAINED = "unexplained"
    """Still on the node after a whole-process call; the kernel does not report why."""

    @classmethod
    def of_errno(cls, number: int) -> str:
        """Return the reason for a page's status -`number`, move_pages(2), or the errno's name."""
        known = _REASON_OF_ERRNO.get(number)
        return known.value if known else errno.errorcode.get(number, f"errno-{number}")


_REASON_OF_ERRNO = {
    errno.EBUSY: Reason.BUSY,
    errno.EAGAIN: Reason.BUSY,
    errno.ENOMEM: Reason.NO_MEMORY,
    errno.EACCES: Reason.SHARED,
    errno.ENOENT: Reason.HIDDEN,
}
