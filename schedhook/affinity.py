"""Give running processes other processors: sched_setaffinity(2) for each of their threads."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from schedhook.errors import NoPermissionError, ProcessGoneError, RefusedError
from schedhook.guard import Guard
from schedhook.host.processes import thread_ids
from schedhook.sets import CpuSet

_RESCANS = 5


class Binding:
    """Threads bound to new processors, with the way back; `guard` knows it too."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._before: dict[int, set[int]] = {}

    def bind(self, pids: Iterable[int], cpus: CpuSet, root: Path = Path("/")) -> None:
        """Bind every thread of the processes to `cpus`. Threads that end meanwhile are no error.

        RefusedError where the kernel allows none of the processors; what was bound until then
        stays so until `undo`.
        """
        for pid in pids:
            for _ in range(_RESCANS):
                try:
                    new = [tid for tid in thread_ids(pid, root) if tid not in self._before]
                except ProcessGoneError:
                    break
                if not new:
                    break
                for tid in new:
                    self._bind_thread(tid, cpus)

    def undo(self) -> None:
        """Give each thread back the processors that it had. Never raises: it mends."""
        for tid, cpus in self._before.items():
            try:
                os.sched_setaffinity(tid, cpus)
            except OSError:  # ended, or its cpuset has changed: the kernel keeps what it allows
                continue
        self._before.clear()

    def _bind_thread(self, tid: int, cpus: CpuSet) -> None:
        try:
            before = os.sched_getaffinity(tid)
            self._guard.bind_back(tid, before)
            os.sched_setaffinity(tid, cpus)
        except ProcessLookupError:
            return
        except PermissionError as error:
            raise NoPermissionError(
                f"cannot bind thread {tid} to processors {cpus}: run as root or with CAP_SYS_NICE"
            ) from error
        except OSError as error:
            raise RefusedError(
                f"thread {tid} may not use processors {cpus}: none is online and in its cpuset"
            ) from error
        self._before[tid] = before
