"""Whole relocations over the simulated backend."""

from __future__ import annotations

from typing import Any

import pytest

from schedhook.backends.simulated import PAGE, SimulatedArea
from schedhook.values.errors import (
    PluginError,
    ProcessGoneError,
    UsageError,
)
from schedhook.values.model import Outcome
from schedhook.values.sets import NodeSet
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


def test_memory_in_swap_is_noted_and_not_counted() -> None:
    backend = host([0] * 8)
    backend.add_process(101, areas=[SimulatedArea(start=AT, nodes=[0] * 4)], swapped=5 << 20)
    report = run(backend, pids=(100, 101))
    assert report.bytes_moved == 12 * PAGE
    assert [note for note in report.notes if "5.0 MiB are in swap" in note]
