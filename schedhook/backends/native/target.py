"""A real process: its memory read from /proc, and moved by system calls through the C core."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from schedhook.backends.native import _core
from schedhook.backends.native.frames import FrameSet
from schedhook.backends.native.held import HeldProcess
from schedhook.backends.native.ranges import Range, find_boundary, locate_range, sweep_range
from schedhook.host import processes
from schedhook.host.memory_files import SharedMapping, read_shared_mappings
from schedhook.host.policies import read_thread_policies
from schedhook.roles.backend import Limits, PageRun, PageSet, Part, Survey, Sweep, Target
from schedhook.values.errors import (
    NotAnsweringError,
    ProcessGoneError,
    SchedhookError,
    UsageError,
    from_errno,
)
from schedhook.values.extents import Extents
from schedhook.values.model import Area, MemoryKind
from schedhook.values.page_sizes import PageSizes
from schedhook.values.policy import Policy
from schedhook.values.sets import NodeSet


class NativeTarget(Target):
    """A process that migrate_pages(2) and move_pages(2) act on.

    `frame_spans` returns the nodes' frames, as `_core` takes them; it is called only for a survey,
    or if the kernel has no PAGEMAP_SCAN. `zero_frame` is 0 if frames are not shown.
    """

    def __init__(
        self,
        pid: int,
        root: Path,
        page_sizes: PageSizes,
        frame_spans: Callable[[], bytes],
        zero_frame: int,
    ) -> None:
        self._root = root
        self._page_sizes = page_sizes
        self._frame_spans = frame_spans
        self._zero_frame = zero_frame
        self._held = HeldProcess(pid, root)
        self._shared: Sequence[SharedMapping] | None = None
        self._use_scan = _core.can_scan(self._held.pagemap)
        self._kpageflags = self._held.keep(_open_kpageflags(root))
        self._spans = b"" if self._use_scan else frame_spans()

    @property
    def pid(self) -> int:
        return self._held.pid

    @property
    def command(self) -> str:
        return self._held.command

    def alive(self) -> bool:
        """Return whether this is still the process that was attached, in the same cgroup."""
        return self._held.alive()

    def areas(self) -> tuple[Area, ...]:
        return self._read_areas(join=True)

    def mappings(self) -> tuple[Area, ...]:
        return self._read_areas(join=False)

    def _read_areas(self, *, join: bool) -> tuple[Area, ...]:
        held = self._held
        held.require_running()
        # One call for all: each wakes another thread.
        (areas, self._shared), is_other = held.call(
            lambda: (
                processes.read_memory(self.pid, self._root, join=join),
                held.has_other_memory(),
            )
        )
        held.require_alive()
        if is_other:  # the areas can be those of another program
            raise ProcessGoneError(f"process {self.pid} has another address space")
        return areas

    def shared_mappings(self) -> Iterable[SharedMapping]:
        """Return the process's shared mappings of files.

        They are those that were read with the areas, once; else they are read now.
        """
        mappings, self._shared = self._shared, None
        if mappings is not None:
            return mappings
        with self._held.noting_no_answer():
            return read_shared_mappings(self.pid, self._root)

    def allowed_nodes(self) -> NodeSet:
        self._held.require_alive()
        return processes.read_status(self.pid, self._root).allowed_nodes

    def survey(self, area: Area, part: Part, seen: PageSet | None) -> Survey | None:
        self._held.require_running()
        frames = seen.frames if isinstance(seen, FrameSet) else None
        whole = self._range(area, area.start, area.end)
        try:
            spans = self._frame_spans()
            found, pages = self._held.call(
                lambda: _core.survey((*whole[:-1], spans), frames, part.value)
            )
        except NotAnsweringError:
            if isinstance(seen, FrameSet):
                seen.renew()  # the call may still write there
            raise
        except OSError as error:
            if error.errno == errno.ESRCH or self._held.is_exiting():
                raise self._held.gone() from error
            raise from_errno(error.errno or 0, self.pid, "move_pages") from error
        return Survey(
            residency=dict(found), pages=None if pages is None else Extents.from_raw(pages)
        )

    def memory_owner_pid(self) -> int | None:
        with suppress(SchedhookError, OSError):  # one of them has exited, or there is no kcmp(2)
            parent = processes.read_parent(self.pid, self._root)
            if _core.shares_memory(self._held.task, processes.live_task(parent, self._root)):
                return parent
        return None

    def swapped(self) -> int:
        self._held.require_alive()
        return processes.read_status(self.pid, self._root).swapped

    def thread_policies(self, areas: Sequence[Area]) -> Mapping[int, Policy | None]:
        self._held.require_alive()
        with self._held.noting_no_answer():
            return read_thread_policies(self.pid, areas, self._root)

    def migrate(self, sources: NodeSet, destinations: NodeSet) -> int:
        if not sources or not destinations:
            raise UsageError("migrate_pages needs at least one old and one new node")
        held = self._held
        size = max([*sources, *destinations]) + 1
        masks = sources.mask(size), destinations.mask(size)
        held.require_alive()
        try:
            left = held.move(lambda: _core.migrate_pages(held.task, held.pidfd, held.comm, *masks))
        except OSError as error:
            if held.exited_in_a_call() or held.is_exiting():
                raise held.gone() from error
            raise from_errno(error.errno or 0, self.pid, "migrate_pages") from error
        if held.exited_in_a_call():
            raise held.gone()
        return left

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
        self._held.require_running()
        if only is not None and not only:
            return Sweep()
        pages = self._range(area, start, end)
        done, error = self._held.move(
            lambda: sweep_range(pages, destinations, shared=shared, limits=limits, only=only)
        )
        if error and (self._held.exited_in_a_call() or self._held.is_exiting()):
            error = errno.ESRCH  # the refusal can be about another process with the number
        if error not in (0, errno.ESRCH):
            # EPERM is an error of its own here: the caller had the right when it attached.
            raise from_errno(error, self.pid, "move_pages")
        return replace(done, gone=error == errno.ESRCH)

    def locate(self, area: Area, start: int, end: int) -> Sequence[PageRun]:
        self._held.require_alive()
        pages = self._range(area, start, end)
        try:
            return self._held.call(lambda: locate_range(pages))
        except OSError as error:
            if self._held.is_exiting():
                raise self._held.gone() from error
            raise from_errno(error.errno or 0, self.pid, "move_pages") from error

    @property
    def page_sizes(self) -> PageSizes:
        return self._page_sizes

    def boundary(self, area: Area, address: int) -> int:
        unit = area.page_size
        start = -(-address // unit) * unit
        if area.kind is MemoryKind.HUGE:
            return start
        end = start + self._page_sizes.largest(unit)
        pages = self._range(area, start, end)
        try:
            found = self._held.call(lambda: find_boundary(pages))
        except NotAnsweringError:  # what reads or moves its pages says so
            found = None
        return super().boundary(area, address) if found is None else found

    @property
    def skips_holes(self) -> bool:
        return self._use_scan

    @property
    def mistaken(self) -> str | None:
        return self._held.mistaken

    @property
    def no_answer(self) -> str | None:
        return self._held.no_answer

    def close(self) -> None:
        self._kpageflags = -1
        self._held.close()

    def _range(self, area: Area, start: int, end: int) -> Range:
        # Huge pages of a pool have one size; only other mappings can hold transparent ones.
        folio_size = 0 if area.kind is MemoryKind.HUGE else self._page_sizes.folio
        return (
            self._held.task,
            self._held.pidfd,
            self._held.comm,
            self._held.pagemap,
            start,
            end,
            area.page_size,
            self._page_sizes.base,
            folio_size,
            self._use_scan,
            self._kpageflags,
            self._zero_frame,
            self._spans,
        )


def _open_kpageflags(root: Path) -> int:
    """Return a descriptor of /proc/kpageflags; -1 if it is missing or only root may read it.

    Without it folios are not recognised: they move too, in more calls.
    """
    try:
        return os.open(root / "proc/kpageflags", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return -1
