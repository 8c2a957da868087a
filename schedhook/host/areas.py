"""Where a process's memory lies: /proc/PID/numa_maps joined with /proc/PID/maps.

The format is that of show_numa_map() in the kernel's fs/proc/task_mmu.c and mpol_to_str() in
mm/mempolicy.c; numa(7) documents most of it.
"""

from __future__ import annotations

import bisect
import contextlib
import mmap
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from schedhook.host._proc import (
    MissingFileError,
    gone,
    is_kernel_thread,
    live_task,
    read,
    task_file,
)
from schedhook.values.errors import ProcessGoneError, SchedhookError
from schedhook.values.model import Area, MemoryKind, add_residency

_MEMORY_FILE_SYSTEMS = {
    b"tmpfs": MemoryKind.SHMEM,
    b"ramfs": MemoryKind.SHMEM,
    b"hugetlbfs": MemoryKind.HUGE,
}
# The mount that holds them is the kernel's own and in no mount table, so only names tell.
_KERNEL_SHMEM = re.compile(rb"(/SYSV|/memfd:|/dev/zero ).*\(deleted\)$", re.DOTALL)
_OCTAL = re.compile(rb"\\([0-7]{3})")
_PSS_PARTS = re.compile(
    rb"^(?:([0-9a-f]{1,16})-[0-9a-f]+ |"
    rb"(Rss|Pss|Shared_Hugetlb|Private_Hugetlb): +(\d{1,18}) kB)",
    re.MULTILINE,
)


def read_areas(
    pid: int, root: Path = Path("/"), *, task: int | None = None, resident_only: bool = True
) -> tuple[Area, ...]:
    """The process's mappings in ascending order, with bytes per node, kind and backing object.

    `task` reads through that thread; by default one is found that still has the memory (see
    `live_task`). `resident_only` leaves out mappings without a page in memory, which a large
    program has in thousands; their `page_size` is not known and given as the base page's.

    Reading walks the process's page tables. The two files are not read at the same instant: a
    mapping that ended in between is left out, one that was split, merged or grew is told as
    /proc/PID/numa_maps saw it, with its end taken from /proc/PID/maps.

    A kernel thread has none. ProcessGoneError, also for a zombie; NoPermissionError where ptrace
    read access is missing, ptrace(2).
    """
    numa_maps, task = _read_numa_maps(pid, root, task)
    if numa_maps == b"":  # a kernel thread, whose maps some kernels refuse with ESRCH
        return ()
    maps = _Maps(read(pid, task_file("maps", task), root))
    memory_devices = _memory_devices(pid, root)
    if numa_maps is None:
        lines = _lines_without_numa(maps, read_pss(pid, root, task=task))
    else:
        lines = _parse_numa_maps(numa_maps, resident_only)
    areas = []
    for index, line in enumerate(lines):
        bound = lines[index + 1].start if index + 1 < len(lines) else None
        mapping = maps.find(line.start, line.size, bound)
        if mapping is not None and (line.pages or not resident_only):
            areas.append(_area(line, mapping, memory_devices))
    return tuple(areas)


def residency(areas: Iterable[Area]) -> dict[int, int]:
    """Bytes per node over all areas. Memory that two areas share counts twice."""
    total: dict[int, int] = {}
    for area in areas:
        add_residency(total, area.residency)
    return total


def read_pss(
    pid: int, root: Path = Path("/"), *, task: int | None = None
) -> Mapping[int, tuple[int, int]]:
    """(rss, pss) in bytes by mapping start, from /proc/PID/smaps.

    pss counts each page divided by the number of processes that map it, so over all processes it
    adds up to what the memory really takes. Of shared huge pages (hugetlbfs) the kernel does not
    tell the share: they count whole in both. Costs more than `read_areas`.
    """
    sizes: dict[int, tuple[int, int]] = {}
    start, rss, pss = -1, 0, 0
    for address, name, kilobytes in _PSS_PARTS.findall(read(pid, task_file("smaps", task), root)):
        if address:
            start, rss, pss = int(address, 16), 0, 0
        else:
            size = int(kilobytes) << 10
            rss += size if name != b"Pss" else 0
            pss += size if name != b"Rss" else 0
        sizes[start] = (rss, pss)
    return sizes


def _read_numa_maps(pid: int, root: Path, task: int | None) -> tuple[bytes | None, int | None]:
    """The file's text (None: the kernel has no such file), and the thread it was read through."""
    data: bytes | None = b""
    try:
        data = read(pid, task_file("numa_maps", task), root)
    except MissingFileError:
        data = None
    except ProcessGoneError:
        # Newer kernels say ESRCH, older ones give an empty file, where there is no memory.
        pass
    if data or (data is None and read(pid, task_file("maps", task), root)):
        return data, task
    if is_kernel_thread(pid, root):
        return b"", task
    other = live_task(pid, root) if task is None else task
    if other in (pid, task):
        raise gone(pid)
    return _read_numa_maps(pid, root, other)


@dataclass(slots=True)
class _Line:
    """A line of numa_maps."""

    start: int
    policy: str = "default"
    name: bytes = b""
    is_huge: bool = False
    anon: int = 0
    most_mappers: int = 1
    page_size: int = mmap.PAGESIZE
    pages: dict[int, int] = field(default_factory=dict)

    @property
    def size(self) -> int:
        return sum(self.pages.values()) * self.page_size


_OTHER_FIELDS = frozenset(
    (b"heap", b"stack", b"dirty", b"mapped", b"swapcache", b"active", b"writeback")
)


def _parse_numa_maps(data: bytes, resident_only: bool) -> list[_Line]:
    lines = []
    for text in data.split(b"\n"):
        # Blanks in file names are escaped, so " N" can only begin a count of pages.
        if text and (b" N" in text or not resident_only):
            with contextlib.suppress(ValueError):  # a line that was cut short
                lines.append(_parse_line(text))
    return lines


def _parse_line(text: bytes) -> _Line:
    words = text.split(b" ")
    line = _Line(int(words[0], 16))
    policy = words[1:2]
    in_policy = True
    for word in words[2:]:
        key, _, value = word.partition(b"=")
        if key[:1] == b"N" and key[1:].isdigit():
            line.pages[int(key[1:])] = int(value)
        elif key == b"file":
            line.name = _unescape(value)
        elif key == b"anon":
            line.anon = int(value)
        elif key == b"mapmax":
            line.most_mappers = int(value)
        elif key == b"kernelpagesize_kB":
            line.page_size = int(value) << 10
        elif key == b"huge":
            line.is_huge = True
        elif key not in _OTHER_FIELDS:
            # `prefer (many):0-1` and `weighted interleave:0-1` have a blank inside.
            if in_policy:
                policy.append(word)
            continue
        in_policy = False
    line.policy = b" ".join(policy).decode("ascii", "replace")
    return line


def _unescape(name: bytes) -> bytes:
    return _OCTAL.sub(lambda match: bytes((int(match[1], 8) & 0xFF,)), name)


@dataclass(slots=True)
class _Mapping:
    """A line of maps."""

    start: int
    end: int
    is_shared: bool
    offset: int
    device: str
    inode: int
    name: bytes

    @property
    def has_file(self) -> bool:
        # Not the inode: a System V segment's is its id, and the first id is 0.
        return self.device != "0:0"

    @classmethod
    def parse(cls, start: int, rest: bytes) -> _Mapping:
        words = rest.split(None, 5)
        major, _, minor = words[3].partition(b":")
        return cls(
            start=start,
            end=int(words[0], 16),
            is_shared=words[1][3:4] == b"s",
            offset=int(words[2], 16),
            device=f"{int(major, 16)}:{int(minor, 16)}",
            inode=int(words[4]),
            name=words[5].replace(b"\\012", b"\n") if len(words) > 5 else b"",
        )


class _Maps:
    """/proc/PID/maps, of which only the lines that are asked for are taken apart."""

    def __init__(self, data: bytes) -> None:
        # Keys stay as they were written: turning a hundred thousand into numbers takes as long
        # as everything else.
        self._rest: dict[bytes, bytes] = {}
        for text in data.split(b"\n"):
            start, dash, rest = text.partition(b"-")
            if dash:
                self._rest[start] = rest
        self._starts: list[int] | None = None

    def __iter__(self) -> Iterator[_Mapping]:
        return (each for key in self._rest if (each := self._parse(key)) is not None)

    def _at(self, start: int) -> _Mapping | None:
        return self._parse(b"%08x" % start)

    def _parse(self, key: bytes) -> _Mapping | None:
        """None where there is no such line, or it was cut short."""
        rest = self._rest.get(key)
        if rest is None:
            return None
        try:
            return _Mapping.parse(int(key, 16), rest)
        except (ValueError, IndexError):
            return None

    def find(self, start: int, size: int, bound: int | None) -> _Mapping | None:
        """The mapping that an area from `start` on with `size` resident bytes is now, or is part
        of; None where it is gone. It ends at `bound` at the latest."""
        mapping = self._at(start) or self._around(start)
        if mapping is None:
            return None
        while size > mapping.end - start:  # it was split: take its parts together
            if bound is not None and mapping.end >= bound:
                break
            following = self._at(mapping.end)
            if following is None or following.end <= mapping.end:
                break
            mapping.end = following.end
        if bound is not None:
            mapping.end = min(mapping.end, bound)
        return mapping

    def _around(self, start: int) -> _Mapping | None:
        """The part from `start` on of the mapping that has swallowed that address."""
        if self._starts is None:
            self._starts = sorted(mapping.start for mapping in self)
        index = bisect.bisect_right(self._starts, start) - 1
        mapping = self._at(self._starts[index]) if index >= 0 else None
        if mapping is None or mapping.end <= start:
            return None
        if mapping.has_file:
            mapping.offset += start - mapping.start
        mapping.start = start
        return mapping


def _memory_devices(pid: int, root: Path) -> dict[str, MemoryKind]:
    """File systems that keep their files in memory, by device, from /proc/PID/mountinfo."""
    try:
        data = read(pid, "mountinfo", root)
    except SchedhookError:
        return {}  # a process that is exiting: names have to do
    devices: dict[str, MemoryKind] = {}
    for text in data.split(b"\n"):
        mount, _, source = text.partition(b" - ")
        kind = _MEMORY_FILE_SYSTEMS.get(source.partition(b" ")[0])
        words = mount.split(b" ", 3)
        if kind and len(words) > 3:
            devices[words[2].decode("ascii", "replace")] = kind
    return devices


def _area(line: _Line, mapping: _Mapping, memory_devices: Mapping[str, MemoryKind]) -> Area:
    # maps escapes line ends only, so its names are truer; but it may show a label in their place.
    name = mapping.name if mapping.name.startswith(b"/") else line.name
    copied = not mapping.is_shared and line.anon == sum(line.pages.values())
    anonymous = not mapping.has_file or (copied and name == b"/dev/zero")
    return Area(
        start=mapping.start,
        end=mapping.end,
        kind=_kind(name, line.is_huge, anonymous, memory_devices.get(mapping.device)),
        page_size=line.page_size,
        residency={node: count * line.page_size for node, count in line.pages.items()},
        path=name.decode("utf-8", "backslashreplace"),
        policy=line.policy,
        is_shared=mapping.is_shared,
        # A private mapping whose every page is the process's own copy shares nothing any more.
        object_key=(mapping.device, mapping.inode, mapping.offset)
        if mapping.has_file and not copied
        else None,
        most_mappers=line.most_mappers,
    )


def _kind(name: bytes, is_huge: bool, anonymous: bool, on_device: MemoryKind | None) -> MemoryKind:
    if is_huge:
        return MemoryKind.HUGE
    if anonymous:
        return MemoryKind.ANON
    if on_device:
        return on_device
    if _KERNEL_SHMEM.match(name) or name.startswith(b"/dev/shm/"):
        return MemoryKind.SHMEM
    return MemoryKind.FILE


def _lines_without_numa(maps: _Maps, sizes: Mapping[int, tuple[int, int]]) -> list[_Line]:
    """What numa_maps would say on a kernel without NUMA: everything is on node 0."""
    lines = []
    for mapping in maps:
        rss, pss = sizes.get(mapping.start, (0, 0))
        lines.append(
            _Line(
                mapping.start,
                name=mapping.name if mapping.has_file else b"",
                anon=0 if mapping.has_file else rss // mmap.PAGESIZE,
                most_mappers=1 if pss == rss else 2,
                pages={0: rss // mmap.PAGESIZE} if rss else {},
            )
        )
    return lines
