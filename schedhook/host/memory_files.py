"""Files that the kernel keeps in memory, and the mappings through which processes share memory.

Sources: proc_pid_mountinfo(5), proc_pid_maps(5).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from schedhook.host._maps import MapsLine, parse_shared
from schedhook.host._proc import live_task, proc_path, read, task_file
from schedhook.host._short_texts import keep_results
from schedhook.values.errors import SchedhookError
from schedhook.values.model import MemoryKind
from schedhook.values.objects import ObjectId, ObjectKind

_MEMORY_FILE_SYSTEMS = {
    b"tmpfs": MemoryKind.SHMEM,
    b"ramfs": MemoryKind.SHMEM,
    b"hugetlbfs": MemoryKind.HUGE,
}

_MOST_TABLES = 16
_LONGEST_TABLE = 256 << 10

Identify = Callable[[MapsLine, bytes], ObjectId]
"""Returns the id of a mapping's object, which has that name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedMapping:
    """A mapping of an object that was made with MAP_SHARED: addresses [start, end)."""

    start: int
    end: int
    object_id: ObjectId
    name: str
    """The object's name, which its user chooses."""


def memory_devices(pid: int, root: Path = Path("/")) -> Mapping[str, MemoryKind]:
    """Return the mounted file systems that keep files in memory, by device (`0:26`).

    They are those of the process's mount namespace, and of this process's own: a process that has
    changed its root directory still has mappings of files outside of it.
    """
    data = b""
    with suppress(OSError):
        data += (root / "proc/self/mountinfo").read_bytes() + b"\n"
    with suppress(SchedhookError):  # it is exiting
        data += read(pid, "mountinfo", root)
    return _find_devices(data)


@keep_results(_MOST_TABLES, _LONGEST_TABLE)  # a job's processes have few mount namespaces
def _find_devices(mountinfo: bytes) -> Mapping[str, MemoryKind]:
    devices: dict[str, MemoryKind] = {}
    for text in mountinfo.split(b"\n"):
        mount, _, source = text.partition(b" - ")
        kind = _MEMORY_FILE_SYSTEMS.get(source.partition(b" ")[0])
        words = mount.split(b" ", 3)
        if kind and len(words) > 3:
            devices[words[2].decode("ascii", "replace")] = kind
    return devices


def object_ids(pid: int, root: Path = Path("/")) -> Identify:
    """Return a function from a mapping of the process and its object's name to the object's id."""

    @cache
    def namespace() -> int:
        with suppress(OSError):  # it has exited
            return proc_path(pid, "ns/ipc", root).stat().st_ino
        return 0

    def identify(mapping: MapsLine, name: bytes) -> ObjectId:
        kind = ObjectKind.of_name(name)
        its = namespace() if kind is ObjectKind.SYSV else 0
        return ObjectId(mapping.device, mapping.inode, kind, its)

    return identify


def read_shared_mappings(pid: int, root: Path = Path("/")) -> Iterator[SharedMapping]:
    """Return the process's shared mappings of files, touched or not, in ascending order.

    Raise ProcessGoneError, also for a zombie, or NoPermissionError.
    """
    task = live_task(pid, root)
    return find_shared(read(pid, task_file("maps", task), root), object_ids(pid, root))


def find_shared(maps: bytes, identify: Identify) -> Iterator[SharedMapping]:
    """Yield the shared mappings of files in a text of /proc/PID/maps."""
    for line in parse_shared(maps):
        if line.has_file:
            yield SharedMapping(
                start=line.start,
                end=line.end,
                object_id=identify(line, line.name),
                name=line.name.decode("utf-8", "backslashreplace"),
            )
