"""Whole relocations over the simulated backend."""

from __future__ import annotations

from typing import Any

import pytest

from schedhook.backends.simulated import PAGE, SimulatedArea
from schedhook.roles.scheduler import Scheduler, Task
from schedhook.values.errors import (
    PluginError,
    ProcessGoneError,
    UsageError,
)
from schedhook.values.model import Outcome, Placement
from schedhook.values.sets import CpuSet, NodeSet
from tests.unit.relocation.simulation import AT, STRATEGIES, host, residency, run


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_memory_of_the_old_node_moves_and_no_other(strategy: str) -> None:
    backend = host([0] * 50 + [1] * 7, [3, 0, None, 0])
    report = run(backend, strategy=strategy)
    assert report.outcome is Outcome.COMPLETE
    assert report.bytes_moved == 52 * PAGE
    assert residency(backend) == {2: 52, 1: 7, 3: 1}
    assert report.processes[0].residency_before == {0: 52 * PAGE, 1: 7 * PAGE, 3: PAGE}
    assert report.processes[0].residency_after == {2: 52 * PAGE, 1: 7 * PAGE, 3: PAGE}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_nothing_there_is_nothing_to_do(strategy: str) -> None:
    report = run(host([1] * 5), strategy=strategy)
    assert (report.outcome, report.bytes_planned) == (Outcome.NOTHING_TO_DO, 0)


@pytest.mark.parametrize(
    ("request_", "error", "message"),
    [
        ({"node_map": "0:9"}, UsageError, "node 9 is not online"),
        ({"pids": (7,)}, ProcessGoneError, "7"),
        ({"strategy": "telepathy"}, PluginError, "migrate-process, move-pages"),
        ({"sources": NodeSet({0}), "destinations": None}, UsageError, "--to"),
    ],
)
def test_wrong_requests_say_what_is_wrong(
    request_: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        run(host([0]), **request_)


class Guarding(Scheduler):
    """A scheduler that grants its jobs processor 0."""

    name = "guarding"

    def tasks(self, job: str) -> tuple[Task, ...]:
        placement = Placement(cpus=CpuSet({0}), nodes=NodeSet({0}))
        return (Task(name="job", pids=(100,), placement=placement),) if job == "7" else ()

    def explain_refused_cpus(self, job: str, cpus: CpuSet) -> str | None:
        return f"job {job} got 0 only" if cpus != {0} else None


@pytest.mark.parametrize("scheduler", ["guarding", None])
@pytest.mark.parametrize(
    ("asked", "outcome"),
    [
        ({"cpus": CpuSet({1})}, Outcome.REFUSED),
        ({"cpus": CpuSet({0, 1})}, Outcome.REFUSED),
        ({"cpus": CpuSet({1}), "force": True}, Outcome.PLANNED),
        ({"cpus": CpuSet({0})}, Outcome.PLANNED),
        ({}, Outcome.PLANNED),
    ],
)
def test_processors_to_which_the_scheduler_objects_are_refused(
    scheduler: str | None, asked: dict[str, Any], outcome: Outcome
) -> None:
    given = {"job": "7", "scheduler": scheduler, "pids": (), "dry_run": True}
    report = run(host([0] * 8), **given, **asked, schedulers={"guarding": Guarding})
    assert report.outcome is outcome
    assert ("job 7 got 0 only" in report.notes) == (outcome is Outcome.REFUSED)


def test_memory_in_swap_is_noted_and_not_counted() -> None:
    backend = host([0] * 8)
    backend.add_process(101, areas=[SimulatedArea(start=AT, nodes=[0] * 4)], swapped=5 << 20)
    report = run(backend, pids=(100, 101))
    assert report.bytes_moved == 12 * PAGE
    assert [note for note in report.notes if "5.0 MiB are in swap" in note]
