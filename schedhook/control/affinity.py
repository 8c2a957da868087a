"""Give running processes other processors, with the way back."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from schedhook.control.rollback import Rollback
from schedhook.control.threads import Thread, affinity, bind, read_threads
from schedhook.roles.backend import Target
from schedhook.values.errors import ProcessGoneError, SchedhookError
from schedhook.values.sets import CpuSet

_RESCANS = 5


class Binding:
    """Threads bound to new processors, with the way back; `guard` knows it too."""

    def __init__(self, guard: Rollback, root: Path = Path("/")) -> None:
        self._guard = guard
        self._root = root
        self._before: dict[Thread, CpuSet] = {}

    def bind(self, targets: Iterable[Target], cpus: CpuSet) -> None:
        """Bind every thread of the processes to `cpus`. Threads that end meanwhile are no error.

        RefusedError where the kernel allows none of the processors; what was bound until then
        stays so until `undo`.
        """
        for target in targets:
            for _ in range(_RESCANS):
                new = [thread for thread in self._threads(target) if thread not in self._before]
                if not new:
                    break
                for thread in new:
                    self._bind(thread, cpus)

    def undo(self) -> None:
        """Give each thread back the processors that it had. Never raises: it mends."""
        for thread, cpus in self._before.items():
            # Where it fails its cpuset has changed, and the kernel keeps what that allows.
            with suppress(SchedhookError):
                bind(thread, cpus, self._root)
        self._before.clear()

    def _threads(self, target: Target) -> list[Thread]:
        try:
            found = read_threads(target.pid, self._root)
        except ProcessGoneError:
            return []
        return found if target.alive() else []  # of another one that has its number

    def _bind(self, thread: Thread, cpus: CpuSet) -> None:
        before = affinity(thread, self._root)
        if not before:
            return
        self._guard.bind_back(thread.tid, thread.start_time, before)
        # Noted first: what fails half-way is undone as well.
        self._before[thread] = before
        bind(thread, cpus, self._root)
