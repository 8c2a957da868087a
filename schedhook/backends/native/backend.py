"""The backend that moves real memory."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from schedhook.backends.native import _core
from schedhook.backends.native.frames import FrameSet
from schedhook.backends.native.shared_object import find_objects
from schedhook.backends.native.target import NativeTarget
from schedhook.host import cgroups, processes
from schedhook.host.frames import node_spans
from schedhook.host.grants import read_grants
from schedhook.host.page_sizes import read_page_sizes
from schedhook.host.topology import Topology, read_topology
from schedhook.roles.backend import Backend, PageSet, SharedObject, Target
from schedhook.values.grants import Grant
from schedhook.values.sets import NodeSet


class NativeBackend(Backend):
    """Moves pages with migrate_pages(2) and move_pages(2).

    /proc and /sys are read below `root`; the system calls always act on this host.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._page_sizes = read_page_sizes(root)
        self._spans: bytes | None = None
        self._zero: int | None = None

    def topology(self) -> Topology:
        return read_topology(self._root)

    def grants(self, nodes: NodeSet) -> Sequence[Grant]:
        return read_grants(nodes, self._root)

    def attach(self, pid: int) -> NativeTarget:
        return NativeTarget(
            pid, self._root, self._page_sizes, self._frame_spans, self._zero_frame()
        )

    def may_move_shared(self) -> bool:
        return _core.may_move_shared()

    def allowed_nodes(self) -> NodeSet:
        return processes.read_status(os.getpid(), self._root).allowed_nodes

    def cgroup_pids(self, path: str) -> Iterable[int]:
        return cgroups.pids(cgroups.resolve_cgroup(path, self._root), self._root)

    def shared_objects(self, targets: Iterable[Target]) -> Sequence[SharedObject]:
        own = [target for target in targets if isinstance(target, NativeTarget)]
        return find_objects(own, self._root)

    def page_set(self) -> PageSet | None:
        return FrameSet() if self._zero_frame() else None

    def _frame_spans(self) -> bytes:
        if self._spans is None:
            rows = node_spans(self._root)
            self._spans = array("Q", [word for row in rows for word in row]).tobytes()
        return self._spans

    def _zero_frame(self) -> int:
        """Return the frame of the zero page; 0 if the caller may not see frames (CAP_SYS_ADMIN)."""
        if self._zero is None:
            with suppress(OSError), (self._root / "proc/self/pagemap").open("rb", 0) as pagemap:
                self._zero = _core.zero_frame(pagemap.fileno())
        return self._zero or 0
