"""What tells the file, or the shared memory object, behind an area from any other one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

# The kernel escapes only newlines in these names, so anything can follow.
_KERNEL_NAME = re.compile(rb"(?:/(SYSV)|/(memfd):|/dev/(zero) ).*\(deleted\)$", re.DOTALL)


class ObjectKind(StrEnum):
    """What an object is; the name in /proc/PID/maps says it of those that no mount table lists."""

    FILE = "file"
    """A file, also one on tmpfs or hugetlbfs."""
    SYSV = "sysv"
    """A System V segment, shmget(2)."""
    MEMFD = "memfd"
    """Of memfd_create(2)."""
    ANONYMOUS = "anonymous"
    """Shared anonymous memory, MAP_SHARED | MAP_ANONYMOUS."""

    @classmethod
    def of_name(cls, name: bytes) -> ObjectKind:
        """Return the kind that a name in /proc/PID/maps stands for."""
        found = _KERNEL_NAME.match(name)
        return _KINDS[found[found.lastindex or 0]] if found else cls.FILE


_KINDS = {
    b"SYSV": ObjectKind.SYSV,
    b"memfd": ObjectKind.MEMFD,
    b"zero": ObjectKind.ANONYMOUS,
}


@dataclass(frozen=True, slots=True)
class ObjectId:
    """Identifies an object: a page at one offset of it is one physical page in all processes.

    The kind belongs to it, because the kernel keeps System V segments on the device of memfds and
    shows a segment's identifier as its inode number, which a memfd can have too. So does the
    namespace, since each IPC namespace numbers its segments from 0.
    """

    device: str
    """major:minor in decimal, as in mountinfo."""
    inode: int
    kind: ObjectKind = ObjectKind.FILE
    namespace: int = 0
    """The IPC namespace of a System V segment's process, by inode number; else 0."""
