"""A dispatcher with one job, for tests of what is done about its events."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from schedhook.agent.dispatcher import Dispatcher
from schedhook.journal.journal import Journal
from schedhook.roles.request import Request
from schedhook.values.config import Config
from schedhook.values.model import (
    Placement,
    Report,
)
from schedhook.values.sets import CpuSet, NodeSet
from tests.unit.agentkit import (
    Moves,
    event,
    make_dispatcher,
    place,
)

ME = os.getpid()
PARENT = os.getppid()


def at(cpus: str, nodes: str) -> Placement:
    return Placement(cpus=CpuSet.parse(cpus), nodes=NodeSet.parse(nodes))


class OneJob:
    """A dispatcher with one job of two tasks, on nodes 0 and 1."""

    def __init__(self, directory: Path, config: Config | None = None, *more: object) -> None:
        self.directory = directory
        self.moves = Moves()
        self.journal = Journal.in_memory()
        self.dispatcher: Dispatcher = make_dispatcher(
            directory, self.moves, *more, journal=self.journal, config=config
        )
        self.put("0", "1")
        self.dispatcher.handle(event("begin"), 1.0)
        self.dispatcher.handle(event("look"), 2.0)

    def put(self, *nodes: str, job: str = "1") -> None:
        """Give the tasks these nodes; cpu N is on node N."""
        pids = (ME, PARENT, 1)
        tasks = {f"0.{n}": ([pids[n]], where, where) for n, where in enumerate(nodes)}
        place(self.directory, job, tasks)

    def look(self, point: str = "look", **data: Any) -> str:
        return self.dispatcher.handle(event(point, **data), 3.0).summary


def interrupt(one: OneJob, after: int = 0) -> None:
    """A look that ends with the process, in the middle of its relocation number `after`."""
    ways = iter([one.moves] * after)

    def crash(request: Request) -> Report:
        for move in ways:
            return move(request)
        raise KeyboardInterrupt

    dispatcher = Dispatcher(Config(), one.dispatcher._plugins, one.journal, carry_out=crash)
    with pytest.raises(KeyboardInterrupt):
        dispatcher.handle(event("look"), 3.0)
