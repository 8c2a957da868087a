"""Repatriation: memory outside of a job's nodes is brought to them."""

from __future__ import annotations

from pathlib import Path

import pytest

from schedhook.agent.dispatcher import Dispatcher
from schedhook.journal.journal import Journal
from schedhook.roles.request import Request
from schedhook.testing.hosts import FakeNode, write_host, write_process
from schedhook.values.actions import Repatriate
from schedhook.values.config import Config
from schedhook.values.model import (
    NodeMap,
    Outcome,
    Plan,
    ProcessPlan,
    Report,
)
from tests.unit.agent.one_job import ME, PARENT, at
from tests.unit.agentkit import (
    FakeScheduler,
    Moves,
    event,
    place,
    plugins,
    with_actions,
)


class Strays:
    """Stands in for the pipeline on a host of four nodes: job 1's memory, in bytes by node."""

    def __init__(self, directory: Path, config: Config, residency: dict[int, int]) -> None:
        write_host(directory, [FakeNode(number=n, cpus=str(n)) for n in range(4)])
        for pid in (ME, PARENT):
            write_process(directory, pid)
        self.moves = Moves()
        self.journal = Journal.in_memory()
        self.residency = residency
        self.dispatcher = Dispatcher(
            config, plugins(directory), self.journal, root=directory, carry_out=self.carry_out
        )
        place(directory, "1", {"0.0": ([ME], "0", "0")})
        for point in ("begin", "look"):
            self.dispatcher.handle(event(point), 1.0)

    def carry_out(self, request: Request) -> Report:
        assert request.home
        if not request.dry_run:
            return self.moves(request)
        moves = {(node, 0): size for node, size in self.residency.items() if node}
        its = ProcessPlan(pid=ME, command="", residency=self.residency, moves=moves)
        node_map = NodeMap(pairs=dict.fromkeys(range(1, 4), 0))
        plan = Plan(strategy="s", backend="b", node_map=node_map, processes=(its,))
        return Report(
            outcome=Outcome.PLANNED, strategy="s", backend="b", node_map=node_map, plan=plan
        )

    def end_another(self) -> None:
        """Let another job end, and what follows from it happen."""
        self.dispatcher.handle(event("begin", "2"), 4.0)
        for more in self.dispatcher.handle(event("end", "2"), 5.0).more:
            self.dispatcher.handle(more, 6.0)


STRAYS = {0: 8 << 20, 3: 2 << 20, 2: 100}


def test_pages_elsewhere_come_home_when_another_job_ends(tmp_path: Path) -> None:
    config = with_actions(repatriate=Repatriate.ALL, repatriate_least_mb=1)
    one = Strays(tmp_path, config, STRAYS)
    one.end_another()
    (request,) = one.moves.requests
    assert (request.pids, request.home, request.sources) == ((ME,), True, {3})
    assert len(one.journal.history("1")[0]["reports"]) == 1, "what is only planned is not recorded"


@pytest.mark.parametrize("repatriate", [Repatriate.NEVER, Repatriate.GRANTED, Repatriate.REPORT])
def test_pages_elsewhere_stay_unless_configured(tmp_path: Path, repatriate: Repatriate) -> None:
    one = Strays(tmp_path, with_actions(repatriate=repatriate, repatriate_least_mb=1), STRAYS)
    one.end_another()
    one.dispatcher.handle(event("look", repatriate=True), 7.0)
    assert one.moves.requests == []


@pytest.mark.parametrize("repatriate", [Repatriate.GRANTED, Repatriate.REPORT, Repatriate.ALL])
def test_pages_outside_of_granted_nodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repatriate: Repatriate
) -> None:
    one = Strays(tmp_path, with_actions(repatriate=repatriate, repatriate_least_mb=1), STRAYS)
    monkeypatch.setattr(FakeScheduler, "granted", lambda *_: {"0.0": at("0", "0")})
    done = one.dispatcher.handle(event("look", repatriate=True), 7.0)
    assert done.summary.startswith("2.0 MiB of 0.0 outside of nodes 0")
    assert bool(one.moves.requests) == (repatriate is not Repatriate.REPORT)


def test_a_share_that_is_too_small_is_left(tmp_path: Path) -> None:
    config = with_actions(repatriate=Repatriate.ALL, repatriate_least_mb=1)
    one = Strays(tmp_path, config, STRAYS | {0: 1 << 30})
    one.end_another()
    assert one.moves.requests == []
