"""The backend that moves real memory: Linux system calls through the C core, and /proc."""

from __future__ import annotations

import errno
import math
import mmap
import os
import time
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from schedhook.backends.native import _core
from schedhook.backends.native.access import attach_error, check_proc, has_exited, open_pidfd
from schedhook.host import cgroups, processes
from schedhook.host.frames import node_spans
from schedhook.host.topology import Topology, read_topology
from schedhook.roles.backend import Backend, Failure, Limits, PageRun, Sweep, Target
from schedhook.values.errors import ProcessGoneError, SchedhookError, UsageError, from_errno
from schedhook.values.extents import Extents
from schedhook.values.model import Area, MemoryKind
from schedhook.values.sets import NodeSet

_BASE_PAGE = mmap.PAGESIZE
_ENTRY = 8
"""Bytes that pagemap has for a page; none once the address space is gone."""
_CHECK_EVERY = 0.05
"""Seconds."""


class NativeBackend(Backend):
    """Moves pages with migrate_pages(2) and move_pages(2).

    `root` is where /proc and /sys are looked for; the system calls always act on this host.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._folio_size = _huge_page_size(root)
        self._spans: bytes | None = None

    def topology(self) -> Topology:
        return read_topology(self._root)

    def attach(self, pid: int) -> NativeTarget:
        return NativeTarget(pid, self._root, self._folio_size, self._frame_spans)

    def _frame_spans(self) -> bytes:
        if self._spans is None:
            rows = node_spans(self._root)
            self._spans = array("Q", [word for row in rows for word in row]).tobytes()
        return self._spans

    def may_move_shared(self) -> bool:
        return _core.may_move_shared()

    def allowed_nodes(self) -> NodeSet:
        return processes.read_status(os.getpid(), self._root).allowed_nodes

    def cgroup_pids(self, path: str) -> Iterable[int]:
        return cgroups.pids(cgroups.resolve_cgroup(path, self._root), self._root)


class NativeTarget(Target):
    """A process held by a pidfd, its start time and its open pagemap.

    The system calls take a number, not a pidfd; so the pidfd is polled before each of them, and
    again after it: what a call said counts only if the process had not exited by then. The
    pagemap, which is bound to the address space, yields nothing once that is gone.
    """

    def __init__(
        self, pid: int, root: Path, folio_size: int, frame_spans: Callable[[], bytes]
    ) -> None:
        self._root = root
        self._folio_size = folio_size
        self._pagemap = self._kpageflags = self._comm = -1
        self._spans = b""
        self._checked = -math.inf
        self._mistaken: str | None = None
        self._pidfd = open_pidfd(pid, root)
        try:
            check_proc(pid, self._pidfd, root)
            self._identity = processes.read_identity(pid, root)
            self._cgroup = cgroups.memberships(pid, root)
            self._command = processes.read_command(pid, root)
            # The first thread may have left while others run; the calls then want one of those.
            self._task = processes.live_task(pid, root)
            self._task_started = processes.read_start_time(pid, root, self._task)
            if self._task != pid:
                self._comm = processes.open_task(pid, self._task, root)
            try:
                self._stack = processes.read_stack_start(pid, root, self._task)
                pagemap = root / f"proc/{pid}/task/{self._task}/pagemap"
                self._pagemap = os.open(pagemap, os.O_RDONLY | os.O_CLOEXEC)
                _core.check_access(self._task)
            except OSError as error:
                raise attach_error(pid, error.errno or 0, root) from error
            if not self.alive():
                raise self._gone()
            self._use_scan = _core.can_scan(self._pagemap)
            if not self._use_scan:
                self._kpageflags = _open_kpageflags(root)
                self._spans = frame_spans()
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        return self._identity.pid

    @property
    def command(self) -> str:
        return self._command

    def alive(self) -> bool:
        """Not exited, and still the process that was attached, in the cgroup that it was in."""
        if self._pidfd < 0 or has_exited(self._pidfd):
            return False
        try:
            return (
                processes.read_identity(self.pid, self._root) == self._identity
                and cgroups.memberships(self.pid, self._root) == self._cgroup
            )
        except ProcessGoneError:
            return False

    def areas(self) -> tuple[Area, ...]:
        self._require_alive()
        areas = processes.read_areas(self.pid, self._root)
        self._require_alive()
        if self._has_other_memory():  # they may be another program's by now
            raise ProcessGoneError(f"process {self.pid} has another address space")
        return areas

    def allowed_nodes(self) -> NodeSet:
        self._require_alive()
        return processes.read_status(self.pid, self._root).allowed_nodes

    def memory_owner_pid(self) -> int | None:
        with suppress(SchedhookError, OSError):  # neither is there any more, or no kcmp(2)
            parent = processes.read_parent(self.pid, self._root)
            if _core.shares_memory(self._task, processes.live_task(parent, self._root)):
                return parent
        return None

    def swapped(self) -> int:
        self._require_alive()
        return processes.read_status(self.pid, self._root).swapped

    def migrate(self, sources: NodeSet, destinations: NodeSet) -> int:
        if not sources or not destinations:
            raise UsageError("migrate_pages needs at least one old and one new node")
        size = max([*sources, *destinations]) + 1
        self._require_alive()
        try:
            left = _core.migrate_pages(
                self._task,
                self._pidfd,
                self._comm,
                sources.mask(size),
                destinations.mask(size),
            )
        except OSError as error:
            if self._exited_in_a_call() or self._is_leaving():
                raise self._gone() from error
            raise from_errno(error.errno or 0, self.pid, "migrate_pages") from error
        if self._exited_in_a_call():
            raise self._gone()
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
        self._require_running()
        if only is not None and not only:
            return Sweep()
        moved, failures, calls, _, error = _core.sweep(
            self._range(area, start, end),
            _table(destinations),
            only.raw() if only else b"",
            shared,
            limits.batch_bytes,
            int(limits.call_seconds * 1e9),
        )
        if error and (self._exited_in_a_call() or self._is_leaving()):
            error = errno.ESRCH  # whoever has the number now may have been refused
        if error not in (0, errno.ESRCH):
            # EPERM is told apart here: the right was there when the process was attached.
            raise from_errno(error, self.pid, "move_pages")
        return Sweep(
            moved=dict(moved),
            failures=tuple(
                Failure(start=first, end=last, errno=number, size=size, page_size=page_size)
                for first, last, number, size, page_size in failures
            ),
            calls=calls,
            gone=error == errno.ESRCH,
        )

    def locate(self, area: Area, start: int, end: int) -> Sequence[PageRun]:
        self._require_alive()
        try:
            runs = _core.locate(*self._range(area, start, end))
        except OSError as error:
            if self._is_leaving():
                raise self._gone() from error
            raise from_errno(error.errno or 0, self.pid, "move_pages") from error
        return [
            PageRun(start=first, end=last, node=node, page_size=page_size)
            for first, last, node, page_size in runs
        ]

    def close(self) -> None:
        for descriptor in (self._kpageflags, self._comm, self._pagemap, self._pidfd):
            if descriptor >= 0:
                os.close(descriptor)
        self._kpageflags = self._comm = self._pagemap = self._pidfd = -1

    @property
    def skips_holes(self) -> bool:
        return self._use_scan

    @property
    def mistaken(self) -> str | None:
        return self._mistaken

    def _require_alive(self) -> None:
        self._checked = time.monotonic()
        if not self.alive():
            raise self._gone()

    def _gone(self) -> ProcessGoneError:
        return ProcessGoneError(f"process {self.pid} has exited")

    def _exited(self) -> bool:
        """Whether the number that the system calls are given may be another's by now."""
        if has_exited(self._pidfd):
            return True
        try:
            return self._comm >= 0 and not os.pread(self._comm, 1, 0)
        except ProcessLookupError:
            return True

    def _has_other_memory(self) -> bool:
        """Whether it has become another program, execve(2). Where it ran in its parent's memory,
        its old address space lives on, and only the new one's place of the stack tells."""
        if not os.pread(self._pagemap, _ENTRY, 0):
            return True
        stack = processes.read_stack_start(self.pid, self._root, self._task)
        return stack not in (0, self._stack)

    def _is_leaving(self) -> bool:
        """It has no memory any more, for which the kernel calls it invalid, and does not count as
        exited yet."""
        try:
            return processes.is_exiting(self.pid, self._root, self._task)
        except ProcessGoneError:
            return True

    def _exited_in_a_call(self) -> bool:
        """To be asked after a call that moves; notes where it may have met a stranger."""
        if not self._exited():
            return False
        with suppress(ProcessGoneError):
            if processes.read_identity(self._task, self._root).start_time != self._task_started:
                self._mistaken = (
                    f"process {self.pid} exited just when pages of it were to be moved, and its"
                    " number is another's now: some of that one's pages may have moved instead"
                )
        return True

    def _require_running(self) -> None:
        """Not exited; whether it left its cgroup is looked at every so often, a process having
        hundreds of small areas."""
        if has_exited(self._pidfd) or time.monotonic() - self._checked > _CHECK_EVERY:
            self._require_alive()

    def _range(
        self, area: Area, start: int, end: int
    ) -> tuple[int, int, int, int, int, int, int, int, int, bool, int, bytes]:
        # Huge pages of a pool have one size; only other mappings can hold transparent ones.
        folio_size = 0 if area.kind is MemoryKind.HUGE else self._folio_size
        return (
            self._task,
            self._pidfd,
            self._comm,
            self._pagemap,
            start,
            end,
            area.page_size,
            _BASE_PAGE,
            folio_size,
            self._use_scan,
            self._kpageflags,
            self._spans,
        )


def _open_kpageflags(root: Path) -> int:
    """Root's alone, and not everywhere; huge pages are moved without it, in more calls."""
    try:
        return os.open(root / "proc/kpageflags", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return -1


def _table(destinations: Mapping[int, int]) -> bytes:
    """int32 by node number, -1 for nodes to leave alone, long enough for every node named."""
    table = array("i", [-1]) * (max([*destinations, *destinations.values()], default=0) + 1)
    for old, new in destinations.items():
        if old != new:
            table[old] = new
    return table.tobytes()


def _huge_page_size(root: Path) -> int:
    """The size of a transparent huge page, 0 on a kernel without them."""
    try:
        size = (root / "sys/kernel/mm/transparent_hugepage/hpage_pmd_size").read_text()
    except OSError:
        return 0
    return int(size)
