"""The role of a backend: read where memory lies and move it, one process at a time.

`native` performs Linux system calls, `simulated` keeps everything in memory. Strategies and the
pipeline use these base classes only, so they run on either.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Self

from schedhook.host.page_sizes import BASE_PAGE, read_page_sizes
from schedhook.host.topology import Topology
from schedhook.values.extents import Extents
from schedhook.values.grants import Grant
from schedhook.values.model import Area, Residency
from schedhook.values.objects import ObjectId
from schedhook.values.page_sizes import PageSizes
from schedhook.values.policy import Policy
from schedhook.values.sets import NodeSet


@dataclass(frozen=True, slots=True, kw_only=True)
class PageRun:
    """Contiguous pages on one node: addresses [start, end)."""

    start: int
    end: int
    node: int
    page_size: int = field(default=BASE_PAGE, compare=False)
    """Bytes that move as one: of a folio the part that is mapped there, if the backend can tell."""
    hidden: bool = False
    """The backend sees that they are there, but cannot move them page by page at the moment; see
    schedhook.migration.unreachable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Addresses [start, end) in which some pages did not move, all for the reason `errno`.

    `size` is the bytes that did not move: scattered pages are reported as a range that covers
    them. Sweeping the range again tries only those pages, since the others have left the node.
    """

    start: int
    end: int
    errno: int
    size: int
    page_size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits on the load that a sweep puts on the process."""

    batch_bytes: int = 8 << 20
    """Maximum bytes that one system call moves."""
    call_seconds: float = 0.0
    """Maximum duration of one call; the batch size adapts to it. 0: no limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """The result of one sweep over a range. All sizes in bytes."""

    moved: Mapping[tuple[int, int], int] = field(default_factory=dict)
    """By (old node, new node); each page is confirmed by its status or by a second query."""
    failures: Sequence[Failure] = ()
    calls: int = 0
    """Move calls made."""
    gone: bool = False
    """The process exited before the sweep ended."""


class PageSet:
    """Physical pages that a survey has seen. A backend that can tell them apart has its own."""


class Part(Enum):
    """Which pages of an area a survey looks at."""

    ALL = 0
    COPIES = 1
    """Of a private mapping of a file, the process's own copies."""
    ORIGINALS = 2
    """Of a private mapping of a file, the pages of the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """Pages of an area that no earlier survey with the same set has seen."""

    residency: Residency
    """Their bytes by node."""
    pages: Extents | None = None
    """Where they are; None if the area has no other present pages."""


class Memory(ABC):
    """Memory of which a backend finds and moves the pages: a process's, or a shared object's.

    A context manager. Every method raises ProcessGoneError once the memory no longer exists.
    """

    @abstractmethod
    def alive(self) -> bool:
        """Return whether the memory still exists."""

    @abstractmethod
    def areas(self) -> tuple[Area, ...]:
        """Return its areas with their residency, read now."""

    @abstractmethod
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
        """Move the pages of `area` in [start, end) by move_pages(2).

        If `only` names pages of several areas of one page size, `area` is the first of these.

        Each page moves from a node that is a key of `destinations` to that key's value. `shared`:
        also move pages that other processes map (MPOL_MF_MOVE_ALL). `only`: move only pages that
        lie completely in one of these extents. Pages that stayed are returned as failures,
        hidden ones with ENOENT.
        """

    @abstractmethod
    def locate(self, area: Area, start: int, end: int) -> Sequence[PageRun]:
        """Return where the present pages of `area` in [start, end) lie, contiguous pages joined.

        If [start, end) reaches into areas behind it, with pages of its size, theirs, too.
        A backend that cannot locate hidden pages leaves them out.
        """

    @property
    def page_sizes(self) -> PageSizes:
        """The sizes of the kernel's pages. Default: this host's."""
        return read_page_sizes()

    def boundary(self, area: Area, address: int) -> int:
        """Return the first address from `address` on at which no page that moves as one is cut.

        `area` tells the size of the pages there. Default: the next multiple of the largest size,
        since folios are aligned to their size unless mremap(2) or a file's mapping shifts them.
        It raises nothing. Of memory that cannot be read it returns the default.
        """
        unit = self.page_sizes.largest(area.page_size)
        return -(-address // unit) * unit

    @property
    def skips_holes(self) -> bool:
        """Return whether a sweep passes over address space without pages at almost no cost."""
        return True

    def close(self) -> None:  # noqa: B027 - holds nothing by default
        """Release what holds it; closing twice is harmless. Default: do nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class SharedObject(Memory):
    """A shared-memory object of a job: the pages that it has and that no process maps.

    Its only area, none if there are no such pages, has offsets in the object as addresses, and
    `most_mappers` 0. No method allocates memory in the object's holes. They raise NoPermissionError
    if the caller may not open the object, BackendError if the kernel cannot reach its pages.
    """

    @property
    @abstractmethod
    def object_id(self) -> ObjectId: ...

    @property
    @abstractmethod
    def name(self) -> str:
        """The name in /proc/PID/maps, which its user chose."""

    @property
    @abstractmethod
    def pids(self) -> Sequence[int]:
        """The processes that map it, whether they have touched it or not."""

    @property
    @abstractmethod
    def span(self) -> int:
        """The bytes of its largest mapping, touched or not."""

    @abstractmethod
    def allocated(self) -> int:
        """Return the bytes that it has in memory and in swap, mapped or not."""


class Target(Memory):
    """One process, held so that its pid cannot come to mean another process.

    The base class of every backend's target. The methods from `survey` on have defaults.
    """

    @property
    @abstractmethod
    def pid(self) -> int: ...

    @property
    @abstractmethod
    def command(self) -> str: ...

    @abstractmethod
    def alive(self) -> bool:
        """Return whether the attached process still runs, not another one with its pid."""

    @abstractmethod
    def areas(self) -> tuple[Area, ...]:
        """Return the process's mappings with their residency, read now.

        Small ones that are alike can be joined: `Area.parts`.
        """

    def mappings(self) -> tuple[Area, ...]:
        """Return the same, and none of them joined. Default: `areas`."""
        return self.areas()

    @abstractmethod
    def allowed_nodes(self) -> NodeSet:
        """Return the nodes that the process's cpuset allows (Mems_allowed, proc(5))."""

    @abstractmethod
    def migrate(self, sources: NodeSet, destinations: NodeSet) -> int:
        """Make one migrate_pages(2) call: from the n-th source to the n-th destination.

        Return the kernel's count of folios that it did not move. The count is incomplete; only
        reading residency again tells what stayed. Raise BackendError or NoPermissionError if the
        whole call failed; with ENOMEM some pages have moved.
        """

    def survey(self, area: Area, part: Part, seen: PageSet | None) -> Survey | None:  # noqa: ARG002
        """Count the pages of one part of `area` that are not in `seen`, and add them to it.

        `seen` is of the backend's `page_set()`; without it, all pages of the part count. None if
        the backend cannot tell. Default: None.
        """
        return None

    def memory_owner_pid(self) -> int | None:
        """Return the parent's pid if the process has no memory of its own but uses the parent's.

        Such a process is a child of vfork(2) until it runs a program or exits. Default: None.
        """
        return None

    def swapped(self) -> int:
        """Return the process's bytes in swap, on no node (VmSwap, proc(5)). Default: 0."""
        return 0

    def thread_policies(
        self,
        areas: Sequence[Area],  # noqa: ARG002 - for those that override it
    ) -> Mapping[int, Policy | None]:
        """Return the memory policy of each thread, by its number; None if it cannot be read.

        `areas` are the process's, as just read. Default: no threads.
        """
        return {}

    @property
    def mistaken(self) -> str | None:
        """Return a sentence for the report if a call may have reached another process.

        That can happen if the process exited and another one got its pid just then. Default: None.
        """
        return None

    @property
    def no_answer(self) -> str | None:
        """Return why a call was given up, if the lock of the process's memory is held; else None.

        Methods then raise NotAnsweringError. Default: None.
        """
        return None


class Backend(ABC):
    """Access to the host's processes and nodes: the base class of every backend."""

    @abstractmethod
    def topology(self) -> Topology:
        """Return nodes, processors, distances and free memory, read now."""

    @abstractmethod
    def attach(self, pid: int) -> Target:
        """Hold a process.

        Raise ProcessGoneError if there is none; NoPermissionError if the caller may not move its
        memory, which is checked with the kernel before anything moves.
        """

    @abstractmethod
    def may_move_shared(self) -> bool:
        """Return whether the caller has CAP_SYS_NICE, which MPOL_MF_MOVE_ALL needs."""

    @abstractmethod
    def allowed_nodes(self) -> NodeSet:
        """Return the nodes of the caller's own cpuset; migrate_pages(2) silently narrows to it."""

    def grants(self, nodes: NodeSet) -> Sequence[Grant]:  # noqa: ARG002 - for those that do
        """Return the cgroups that may allocate on some of `nodes` only, all that have memory.

        Default: none.
        """
        return ()

    @property
    def is_simulation(self) -> bool:
        """Return whether it acts on no process of this host. Default: False."""
        return False

    def page_set(self) -> PageSet | None:
        """Return an empty set of physical pages; None if the backend cannot tell pages apart.

        Then a page that several areas map is only known as one page if they map one object.
        Default: None.
        """
        return None

    @abstractmethod
    def cgroup_pids(self, path: str) -> Iterable[int]:
        """Return the pids in a cgroup and all below it. Raise UsageError if there is none."""

    def shared_objects(self, targets: Iterable[Target]) -> Sequence[SharedObject]:  # noqa: ARG002
        """Return the shared-memory objects that these processes map, each once.

        Default: none, for a backend that reaches only pages that a process maps.
        """
        return ()
