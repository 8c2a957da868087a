"""The areas of a process's memory: /proc/PID/numa_maps joined with /proc/PID/maps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from schedhook.host._joining import Apart, read_joined
from schedhook.host._maps import Maps, MapsLine, parse_maps
from schedhook.host._numa_maps import NumaLine, parse_numa_maps
from schedhook.host._proc import (
    MissingFileError,
    gone,
    is_kernel_thread,
    live_task,
    read,
    task_file,
)
from schedhook.host.memory_files import (
    Identify,
    SharedMapping,
    find_shared,
    memory_devices,
    object_ids,
)
from schedhook.host.page_sizes import BASE_PAGE
from schedhook.host.smaps import read_pss
from schedhook.values.errors import NotAnsweringError, ProcessGoneError
from schedhook.values.model import Area, MemoryKind
from schedhook.values.objects import ObjectKind
from schedhook.values.sizes import sum_sizes

_MANY = 1000
"""Mappings from which on small ones are joined; with fewer there is nothing to gain."""


def read_areas(
    pid: int,
    root: Path = Path("/"),
    *,
    task: int | None = None,
    resident_only: bool = True,
    join: bool = True,
) -> tuple[Area, ...]:
    """Return the areas that `read_memory` describes."""
    return read_memory(pid, root, task=task, resident_only=resident_only, join=join)[0]


def read_memory(
    pid: int,
    root: Path = Path("/"),
    *,
    task: int | None = None,
    resident_only: bool = True,
    join: bool = True,
) -> tuple[tuple[Area, ...], tuple[SharedMapping, ...]]:
    """Return the process's mappings in ascending order, with bytes per node, kind and object.

    Also return all its shared mappings of files, touched or not.

    `task` reads through that thread; by default a thread is found that still has the memory (see
    `live_task`). `resident_only` leaves out mappings without a page in memory, of which a large
    program has thousands, unless the thread or they have a memory policy. The `page_size` of a
    mapping without a page is that of the base page. `join`: if there are very many, return small
    ones of private anonymous memory together. What the kernel maps of its own memory, as the vDSO's
    data, is left out; Linux 7.2 counts it in numa_maps, earlier ones only the page of uprobes.

    Reading walks the process's page tables. The two files are not read at the same instant: a
    mapping that ended in between is left out; one that was split, merged or grew is returned as
    /proc/PID/numa_maps showed it, with its end taken from /proc/PID/maps.

    A kernel thread has no mappings. Raise ProcessGoneError, also for a zombie; NoPermissionError
    without ptrace read access, ptrace(2).
    """
    numa_maps, task = _read_numa_maps(pid, root, task)
    if numa_maps == b"":  # a kernel thread; some kernels fail to open its maps with ESRCH
        return (), ()
    maps = read(pid, task_file("maps", task), root)
    files = _Files(devices=memory_devices(pid, root), identify=object_ids(pid, root))
    if numa_maps is None:
        sizes = read_pss(pid, root, task=task)
        areas = _find_areas(_lines_without_numa(maps, sizes, resident_only), maps, files)
    elif join and maps.count(b"\n") >= _MANY:
        areas = _join_areas(read_joined(numa_maps, maps, resident_only=resident_only), maps, files)
    else:
        areas = _find_areas(parse_numa_maps(numa_maps, resident_only), maps, files)
    return tuple(areas), tuple(find_shared(maps, files.identify))


def residency(areas: Iterable[Area]) -> dict[int, int]:
    """Return bytes per node over all areas. Memory that two areas share counts twice."""
    return sum_sizes(area.residency for area in areas)


def _read_numa_maps(pid: int, root: Path, task: int | None) -> tuple[bytes | None, int | None]:
    """Return the file's text and the thread through which it was read.

    The text is None if the kernel has no such file, and empty for a kernel thread.
    """
    data: bytes | None = b""
    try:
        data = read(pid, task_file("numa_maps", task), root)
    except MissingFileError:
        data = None
    except NotAnsweringError:
        raise
    except ProcessGoneError:
        # Without memory, newer kernels fail with ESRCH, older ones return an empty file.
        pass
    if data or (data is None and read(pid, task_file("maps", task), root)):
        return data, task
    if is_kernel_thread(pid, root):
        return b"", task
    other = live_task(pid, root) if task is None else task
    if other in (pid, task):
        raise gone(pid)
    return _read_numa_maps(pid, root, other)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Files:
    """What is known of the files that a process maps."""

    devices: Mapping[str, MemoryKind]
    """The file systems in memory, by device."""
    identify: Identify


def _join_areas(found: Iterable[Area | Apart], maps: bytes, files: _Files) -> Iterator[Area]:
    """Yield the areas that were joined, and those of the lines that were not."""
    lines = Maps(maps)
    for each in found:
        if isinstance(each, Area):
            yield each
            continue
        lines.seek(each.offset)
        mapping = lines.find(each.start, each.line.size, each.bound)
        if mapping is not None:
            yield _area(each.line, mapping, files)


def _find_areas(
    lines: Iterable[tuple[int, NumaLine]], maps: bytes, files: _Files
) -> Iterator[Area]:
    """Yield the area of each line."""
    mappings = Maps(maps)
    for start, line, bound in _bounded(lines):
        mapping = mappings.find(start, line.size, bound)
        if mapping is not None:
            yield _area(line, mapping, files)


def _bounded(
    lines: Iterable[tuple[int, NumaLine]],
) -> Iterator[tuple[int, NumaLine, int | None]]:
    """Yield address and line of each mapping, and the next one's address, None for the last."""
    last: tuple[int, NumaLine] | None = None
    for start, line in lines:
        if last:
            yield *last, start
        last = start, line
    if last:
        yield *last, None


def _area(line: NumaLine, mapping: MapsLine, files: _Files) -> Area:
    # maps escapes only newlines, so its names are more faithful; but it may show a label instead.
    name = mapping.name if mapping.name.startswith(b"/") else line.name
    copied = 0 if mapping.is_shared or not mapping.has_file else line.anon
    is_own = not mapping.is_shared and line.anon == sum(line.pages.values())
    anonymous = not mapping.has_file or (is_own and name == b"/dev/zero")
    has_object = mapping.has_file and not is_own
    return Area(
        start=mapping.start,
        end=mapping.end,
        kind=_kind(name, line.is_huge, anonymous, files.devices.get(mapping.device)),
        page_size=line.page_size,
        residency={node: count * line.page_size for node, count in line.pages.items()},
        path=name.decode("utf-8", "backslashreplace"),
        policy=line.policy,
        is_shared=mapping.is_shared,
        object_id=files.identify(mapping, name) if has_object else None,
        offset=mapping.offset if mapping.has_file else 0,
        copied=copied * line.page_size,
        most_mappers=line.most_mappers,
    )


def _kind(name: bytes, is_huge: bool, anonymous: bool, on_device: MemoryKind | None) -> MemoryKind:
    if is_huge:
        return MemoryKind.HUGE
    if anonymous:
        return MemoryKind.ANON
    if on_device:
        return on_device
    if ObjectKind.of_name(name) is not ObjectKind.FILE or name.startswith(b"/dev/shm/"):
        return MemoryKind.SHMEM
    return MemoryKind.FILE


def _lines_without_numa(
    maps: bytes, sizes: Mapping[int, tuple[int, int]], resident_only: bool
) -> Iterator[tuple[int, NumaLine]]:
    """Return what numa_maps would show on a kernel without NUMA: everything is on node 0."""
    for mapping in parse_maps(maps):
        rss, pss = sizes.get(mapping.start, (0, 0))
        if resident_only and not rss:
            continue
        yield (
            mapping.start,
            NumaLine(
                name=mapping.name if mapping.has_file else b"",
                anon=0 if mapping.has_file else rss // BASE_PAGE,
                most_mappers=1 if pss == rss else 2,
                pages={0: rss // BASE_PAGE} if rss else {},
                size=rss // BASE_PAGE * BASE_PAGE,
            ),
        )
