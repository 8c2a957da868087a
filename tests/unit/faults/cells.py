"""The matrix's cells run a few at a time, ahead of their turn, and all that wait wait at once."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.unit.faults.faults import Fault

Run = Callable[[str, Path], int]
"""Given a fault's name and an empty directory within everybody's reach; how many hooks have run."""
WORKING, WAITING = 2, 16
"""Threads; a cell that works has up to ten hooks at a time."""


def cells(names: Mapping[str, Any] | Iterable[str]) -> Callable[[Run], Callable[..., None]]:
    """Make a test for each name out of a function that runs hooks."""
    named = names.items() if isinstance(names, Mapping) else ()
    waits = {name for name, fault in named if isinstance(fault, Fault) and fault.waits}

    def make(run: Run) -> Callable[..., None]:
        @pytest.mark.parametrize("name", names)
        def test(name: str, ahead: Ahead) -> None:
            ahead.finish(run, name)

        test.__dict__.update(run=run, waits=waits)
        test.__name__, test.__doc__ = run.__name__, run.__doc__
        return test

    return make


class Ahead:
    """The cells among these tests, begun."""

    def __init__(self, tests: Iterable[Any]) -> None:
        self.runs = 0
        self._pools = ThreadPoolExecutor(WORKING), ThreadPoolExecutor(WAITING)
        self._cells: dict[tuple[Run, str], Future[int]] = {}
        for test in tests:
            if run := getattr(test.obj, "run", None):
                name = test.callspec.params["name"]
                pool = self._pools[name in test.obj.waits]
                self._cells[run, name] = pool.submit(_in_a_directory, run, name)

    def finish(self, run: Run, name: str) -> None:
        """Wait for a cell; raises what it raised."""
        self.runs += self._cells[run, name].result()

    def end(self) -> None:
        for pool in self._pools:
            pool.shutdown(cancel_futures=True)


def _in_a_directory(run: Run, name: str) -> int:
    with tempfile.TemporaryDirectory(prefix="schedhook-") as directory:
        Path(directory).chmod(0o755)
        return run(name, Path(directory))
