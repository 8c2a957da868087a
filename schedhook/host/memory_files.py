"""Files that the kernel keeps in memory, and the mappings through which processes share memory.

Sources: proc_pid_mountinfo(5), proc_pid_maps(5).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from schedhook.host._maps import parse_shared
from schedhook.host._proc import live_task, read, task_file
from schedhook.values.errors import SchedhookError
from schedhook.values.model import MemoryKind
from schedhook.values.objects import ObjectId, ObjectKind

_MEMORY_FILE_SYSTEMS = {
    b"tmpfs": MemoryKind.SHMEM,
    b"ramfs": MemoryKind.SHMEM,
    b"hugetlbfs": MemoryKind.HUGE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedMapping:
    """A mapping of an object that was made with MAP_SHARED: addresses [start, end)."""

    start: int
    end: int
    object_id: ObjectId
    name: str
    """The object's name, which its user chooses."""


def memory_devices(pid: int, root: Path = Path("/")) -> dict[str, MemoryKind]:
    """Return the mounted file systems that keep files in memory, by device (`0:26`).

    They are those of the process's mount namespace; none if the process is exiting.
    """
    try:
        data = read(pid, "mountinfo", root)
    except SchedhookError:
        return {}
    devices: dict[str, MemoryKind] = {}
    for text in data.split(b"\n"):
        mount, _, source = text.partition(b" - ")
        kind = _MEMORY_FILE_SYSTEMS.get(source.partition(b" ")[0])
        words = mount.split(b" ", 3)
        if kind and len(words) > 3:
            devices[words[2].decode("ascii", "replace")] = kind
    return devices


def read_shared_mappings(pid: int, root: Path = Path("/")) -> Iterator[SharedMapping]:
    """Yield the process's shared mappings of files, touched or not, in ascending order.

    Raise ProcessGoneError, also for a zombie, or NoPermissionError.
    """
    task = live_task(pid, root)
    for line in parse_shared(read(pid, task_file("maps", task), root)):
        if line.has_file:
            yield SharedMapping(
                start=line.start,
                end=line.end,
                object_id=ObjectId(line.device, line.inode, ObjectKind.of_name(line.name)),
                name=line.name.decode("utf-8", "backslashreplace"),
            )
