"""Bind running processes to other processors, and undo it."""

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
"""Looks for threads that appeared while others were bound."""


class Binding:
    """Threads that were bound to new processors. `rollback` records their old ones first."""

    def __init__(self, rollback: Rollback, root: Path = Path("/")) -> None:
        self._rollback = rollback
        self._root = root
        self._bound: dict[Thread, tuple[CpuSet, CpuSet]] = {}
        """The old and the new processors of each thread."""

    def bind(self, targets: Iterable[Target], cpus: CpuSet) -> None:
        """Bind every thread of the processes to `cpus`; threads that end are skipped.

        Raise RefusedError if the kernel allows none of the processors. What was bound before the
        error stays bound until `undo`.
        """
        for target in targets:
            for _ in range(_RESCANS):
                new = [thread for thread in self._threads(target) if thread not in self._bound]
                if not new:
                    break
                for thread in new:
                    self._bind(thread, cpus)

    def undo(self) -> None:
        """Bind each thread to its old processors, unless another process has bound it since.

        Errors are ignored.
        """
        for thread, (before, after) in self._bound.items():
            # It fails only if the thread's cpuset has changed, and the kernel keeps to that anyway.
            with suppress(SchedhookError):
                if affinity(thread, self._root) <= after:
                    bind(thread, before, self._root)
        self._bound.clear()

    def _threads(self, target: Target) -> list[Thread]:
        try:
            found = read_threads(target.pid, self._root)
        except ProcessGoneError:
            return []
        # If the target has ended, another process may have its number.
        return found if target.alive() else []

    def _bind(self, thread: Thread, cpus: CpuSet) -> None:
        before = affinity(thread, self._root)
        if not before:
            return
        self._rollback.record_affinity(thread.tid, thread.start_time, before, cpus)
        # Before the change, so that one that fails half-way is undone too.
        self._bound[thread] = before, cpus
        bind(thread, cpus, self._root)
