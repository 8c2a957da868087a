"""Shared-memory objects of processes, and their pages that no process maps at the moment.

Such a page is in no page table: no process has touched it yet, or those that had have exited. So
move_pages(2) cannot name it in any process of the job.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from schedhook.backends.native.object_file import (
    MappingGoneError,
    OtherFileError,
    kernel_devices,
    open_object,
)
from schedhook.backends.native.target import NativeTarget
from schedhook.backends.native.windows import Windows, has_unwritten, open_windows
from schedhook.host.memory_files import SharedMapping, memory_devices, read_shared_mappings
from schedhook.host.page_sizes import BASE_PAGE
from schedhook.roles.backend import Failure, Limits, PageRun, SharedObject, Sweep
from schedhook.values.errors import BackendError, ProcessGoneError
from schedhook.values.extents import Extents
from schedhook.values.model import Area, MemoryKind
from schedhook.values.objects import ObjectId


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that maps an object, and where."""

    target: NativeTarget
    mapping: SharedMapping


class NativeSharedObject(SharedObject):
    """An object that some processes of a job map; `holders` must not be empty.

    It is opened for each call and closed at its end: an open descriptor would keep its memory
    allocated after the job has ended.
    """

    def __init__(self, object_id: ObjectId, holders: Sequence[Holder], root: Path) -> None:
        self._object_id = object_id
        self._holders = holders
        self._root = root
        self._unwritten = False
        """Whether the last reading found pages that no process has used."""

    @property
    def object_id(self) -> ObjectId:
        return self._object_id

    @property
    def name(self) -> str:
        return self._holders[0].mapping.name

    @property
    def pids(self) -> Sequence[int]:
        return list(dict.fromkeys(holder.target.pid for holder in self._holders))

    @property
    def span(self) -> int:
        return max(holder.mapping.end - holder.mapping.start for holder in self._holders)

    def alive(self) -> bool:
        return any(holder.target.alive() for holder in self._holders)

    def allocated(self) -> int:
        with self._opened() as windows:
            return windows.allocated

    def areas(self) -> tuple[Area, ...]:
        residency: dict[int, int] = {}
        with self._opened(is_reading=True) as windows:
            size, page_size = windows.size, windows.page_size
            for run in windows.locate(0, size):
                residency[run.node] = residency.get(run.node, 0) + run.end - run.start
        if not residency:
            return ()
        return (
            Area(
                start=0,
                end=size,
                kind=MemoryKind.HUGE if windows.is_huge else MemoryKind.SHMEM,
                page_size=page_size,
                residency=residency,
                path=self.name,
                is_shared=True,
                object_id=self._object_id,
                most_mappers=0,
            ),
        )

    def locate(self, area: Area, start: int, end: int) -> Sequence[PageRun]:
        del area  # there is one
        with self._opened() as windows:
            return list(windows.locate(start, end))

    def sweep(
        self,
        area: Area,
        start: int,
        end: int,
        destinations: Mapping[int, int],
        *,
        shared: bool,
        limits: Limits,
        only: Extents | None = None,
    ) -> Sweep:
        try:
            with self._opened() as windows:
                return windows.sweep(
                    start, end, destinations, shared=shared, limits=limits, only=only
                )
        except BackendError as error:
            failure = Failure(
                start=start,
                end=end,
                errno=error.errno,
                size=min(end - start, area.resident),
                page_size=area.page_size,
            )
            return Sweep(failures=(failure,))

    @contextmanager
    def _opened(self, *, is_reading: bool = False) -> Iterator[Windows]:
        """Open the object through the first holder that still maps it.

        Raise ProcessGoneError if none does, SchedhookError if it cannot be opened.
        """
        problem: BackendError | None = None
        for holder in self._holders:
            try:
                file, page_size = self._open(holder)
            except (ProcessGoneError, MappingGoneError):
                continue
            except BackendError as error:
                problem = error
                continue
            try:
                if holder.target.alive():  # so it was its mapping
                    if is_reading:
                        self._unwritten = page_size == BASE_PAGE and has_unwritten(file)
                    with open_windows(file, page_size, unwritten=self._unwritten) as windows:
                        yield windows
                    return
            finally:
                os.close(file)
        raise problem or ProcessGoneError(f"no process of the job maps {self.name} any more")

    def _open(self, holder: Holder) -> tuple[int, int]:
        pid = holder.target.pid
        try:
            return open_object(pid, holder.mapping, self._root)
        except MappingGoneError:  # or it was split, or joined with another one
            for mapping in read_shared_mappings(pid, self._root):
                if mapping.object_id == self._object_id:
                    return self._open_again(pid, mapping)
            raise

    def _open_again(self, pid: int, mapping: SharedMapping) -> tuple[int, int]:
        try:
            return open_object(pid, mapping, self._root)
        except OtherFileError as error:
            raise BackendError(
                f"{self.name} cannot be opened through the mapping of process {pid}, as if its file"
                " system were a layer of another one (overlayfs)"
            ) from error


def find_objects(targets: Iterable[NativeTarget], root: Path) -> list[NativeSharedObject]:
    """Return the shared-memory objects that these processes map, each once.

    Files on other file systems are left out, and processes that have exited. The mappings are those
    that were read with the processes' areas.
    """
    holders: dict[ObjectId, list[Holder]] = {}
    for target in targets:
        try:
            mappings = target.shared_mappings()
            found = {each.object_id: each for each in only_memory(mappings, target.pid, root)}
            if not target.alive():
                continue
        except ProcessGoneError:
            continue
        for object_id, mapping in found.items():
            holders.setdefault(object_id, []).append(Holder(target, mapping))
    return [NativeSharedObject(each, its, root) for each, its in holders.items()]


def shared_memory(pid: int, root: Path) -> Iterator[SharedMapping]:
    """Yield the process's mappings of shared memory. Raise what `read_shared_mappings` raises."""
    return only_memory(read_shared_mappings(pid, root), pid, root)


def only_memory(mappings: Iterable[SharedMapping], pid: int, root: Path) -> Iterator[SharedMapping]:
    """Yield those of the process's mappings that are of shared memory."""
    devices, is_complete = kernel_devices(root), False
    for mapping in mappings:
        if mapping.object_id.device not in devices and not is_complete:
            devices, is_complete = {**devices, **memory_devices(pid, root)}, True
        if mapping.object_id.device in devices:
            yield mapping
