"""Targets of processes that are only held if something asks for them."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Self

from schedhook.roles.backend import Backend, Target
from schedhook.values.errors import SchedhookError


class HeldTargets:
    """Attaches to a process when it is first asked for, and releases all at the block's end."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self._stack = ExitStack()
        self._targets: dict[int, Target | None] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def get(self, pid: int) -> Target | None:
        """Return the process's target; None if it has exited, or the caller may not hold it."""
        if pid not in self._targets:
            try:
                self._targets[pid] = self._stack.enter_context(self.backend.attach(pid))
            except SchedhookError:
                self._targets[pid] = None
        return self._targets[pid]
